"""What happens to a server as lines of JSON: when, how grave, what, to which request; never what users sent.

A file is written by appending whole lines, and opened anew when another program moved it: turning files over is left to
the system's logrotate.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Tuple, Union

from ..errors import InputError
from ..files import PathLike, reason
from ..words import escaped

__all__ = ["LEVELS", "SILENT", "EventLog", "Fields", "LogFile", "open_log"]

LEVELS = ("info", "warning", "error")
Value = Union[str, int, float, bool, None]
Fields = Mapping[str, Value]
BURST, BURST_S = 10, 60.0
"""So many warnings or errors of one kind are written in so many seconds; the rest are counted."""
MOST_KEYS = 256
LONGEST = 300  # characters of a value
STDERR = "-"


@dataclass
class _Burst:
    """The lines of one kind since ``began``: how many were written, and how many left out."""

    began: float
    written: int = 0
    left_out: int = 0


class EventLog:
    """Writes events, from any thread; ``write`` takes one line with its end, and may raise ``OSError``.

    A log that cannot be written stops nobody from answering: ``lost`` counts such lines.
    """

    def __init__(self, write: Optional[Callable[[bytes], object]], clock: Callable[[], float] = time.time) -> None:
        self._write, self._clock, self._lock = write, clock, threading.Lock()
        self._bursts: Dict[Tuple[str, str], _Burst] = {}
        self.lost = 0

    def event(self, event: str, fields: Optional[Fields] = None, level: str = "info", request: str = "") -> None:
        """One line. ``fields``: what else is known, short values that hold nothing of what a user sent.

        Of warnings and errors of one event and ``kind`` (a field) only the first ten of a minute are written; the first
        of the next says how many were left out (``suppressed``).
        """
        if self._write is None:
            return
        given = fields or {}
        with self._lock:
            now = self._clock()
            left_out = 0 if level == LEVELS[0] else self._left_out((event, str(given.get("kind", ""))), now)
            if left_out is None:
                return
            line: Dict[str, Value] = {"time": _stamp(now), "level": level, "event": event}
            if request:
                line["request"] = _short(request)
            line.update({name: _short(value) for name, value in given.items()})
            if left_out:
                line["suppressed"] = left_out
            try:
                # ASCII, so that no reader's idea of line ends or of half characters matters
                self._write(json.dumps(line, ensure_ascii=True).encode("ascii") + b"\n")
            except (OSError, ValueError):  # a full disk, a closed stream
                self.lost += 1

    def _left_out(self, key: Tuple[str, str], now: float) -> Optional[int]:
        """How many lines of ``key`` were left out before this one; ``None``: this one is left out too."""
        if key not in self._bursts and len(self._bursts) >= MOST_KEYS:
            del self._bursts[next(iter(self._bursts))]  # the oldest
        burst = self._bursts.setdefault(key, _Burst(now))
        left_out = burst.left_out
        if not 0 <= now - burst.began < BURST_S:  # a clock set back begins anew, too
            burst = self._bursts[key] = _Burst(now)
        if burst.written == BURST:
            burst.left_out += 1
            return None
        burst.written += 1
        burst.left_out = 0
        return left_out


class LogFile:
    """A file that lines are appended to, opened anew when what stands at its path is another file.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: PathLike) -> None:
        self._path, self._torn = os.fspath(path), False
        try:
            self._file, self._identity = self._open()
        except OSError as e:
            raise InputError(f"--log-json is {self._path!r}, which cannot be written ({reason(e)})") from e

    def write(self, line: bytes) -> None:
        """Appends ``line``.

        Raises:
            OSError: it cannot be written.
        """
        if self._moved():
            old = self._file  # kept until there is another: its number must not be that of a connection meanwhile
            self._file, self._identity = self._open()
            os.close(old)
        whole = b"\n" + line if self._torn else line
        self._torn = os.write(self._file, whole) < len(whole)
        if self._torn:
            raise OSError(errno.ENOSPC, "a line was written in part")

    def _moved(self) -> bool:
        try:
            seen = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (seen.st_dev, seen.st_ino) != self._identity

    def _open(self) -> Tuple[int, Tuple[int, int]]:
        """A descriptor, and which file it is. A pipe that nobody reads is refused, and one that is full loses lines."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
        file = os.open(self._path, flags, 0o640)
        opened = os.fstat(file)
        return file, (opened.st_dev, opened.st_ino)


def open_log(where: PathLike) -> EventLog:
    """A log in a file, or on stderr for ``-``.

    Raises:
        InputError: as ``LogFile``.
    """
    return EventLog(_to_stderr if os.fspath(where) == STDERR else LogFile(where).write)


def _to_stderr(line: bytes) -> None:
    sys.stderr.write(line.decode("ascii"))
    sys.stderr.flush()


def _stamp(now: float) -> str:
    """RFC 3339, UTC, to the millisecond."""
    millis = int(now * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(millis // 1000))}.{millis % 1000:03d}Z"


def _short(value: Value) -> Value:
    """``value``; a long text is cut, and NaN, which JSON has not, is a text."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if not isinstance(value, str):
        return value
    return escaped(value if len(value) <= LONGEST else f"{value[:LONGEST]}…")


SILENT = EventLog(None)
"""Writes nothing."""
