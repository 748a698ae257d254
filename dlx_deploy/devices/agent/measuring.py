"""The measuring lock: one on a whole board, so that two people, or two packages, are not timed at once.

It is held by a process here that waits for its asker to end, by a lock of the system's on an open file: when the asker
goes, the connection breaks or the board starts anew, it is free, and no rule of age is needed. Beside the file lies,
for people, who holds it. The file is in a folder that every user may write, the same one for all.
"""

import fcntl
import json
import os
import pwd
import re
import select
import signal
import stat
import sys
import time
from typing import Callable, Dict, Optional

from .facts import power_modes
from .files import Refusal, Table, field_number, field_text, read_text

__all__ = ["MARK", "measure", "measured_by", "release"]

FOLDERS = ("/run/lock", "/tmp")
NAME = "dlx-deploy.measuring"
MARK = "dlx-deploy-measuring "
"""Begins a line on standard error that is for the asker's program."""
POLL_S, HEARTBEAT_S, STEAL_S = 0.5, 20.0, 10.0
MOST = 4096  # bytes of what a holder says of itself
PROC = "/proc"


class _Ended(Exception):
    """Raised by a signal: the lock is given back, or was taken away."""


def measure(asked: Table) -> Table:
    """Holds the lock until standard input ends, or ``release`` or a thief signals. ``who``, ``purpose`` and ``since``
    are for people; ``wait_s``: so long until it is free; ``steal``: end the process that holds it.

    Says on standard error, with ``MARK``, when it waits and when it holds. Gives how it ended: ``released``, ``stolen``
    or ``gone``.

    Raises:
        Refusal: another one holds it, and neither waiting nor stealing was asked for, or it cannot be stolen.
    """
    path = os.path.join(_folder(), NAME)
    about = {name: field_text(asked, name) for name in ("who", "purpose", "since")}
    handle = _open(path)
    try:
        if not _take(handle, path, field_number(asked, "wait_s", 0), bool(asked.get("steal"))):
            return {"ended": "gone"}
        signals = {signal.SIGUSR1: "released", signal.SIGTERM: "stolen"}
        before = {number: signal.signal(number, _end_by(how)) for number, how in signals.items()}
        note = _note(path, about)
        try:
            _tell({"holds": os.getpid(), "power": power_modes()})
            while not _gone(HEARTBEAT_S):
                _tell({})
            return {"ended": "gone"}
        except _Ended as e:
            return {"ended": str(e)}
        finally:
            for number in before:
                signal.signal(number, signal.SIG_IGN)
            os.unlink(note)
            for number, handler in before.items():
                signal.signal(number, handler)
    finally:
        os.close(handle)


def release(asked: Table) -> Table:
    """Has the holder ``pid`` give the lock back."""
    pid = int(field_number(asked, "pid", 1))
    if not _is_holding(pid):
        return {"released": False}
    os.kill(pid, signal.SIGUSR1)
    return {"released": True}


def measured_by() -> Optional[str]:
    """Who measures on the board, in words; ``None``: nobody."""
    path = os.path.join(_folder(), NAME)
    if not os.path.exists(path):
        return None
    handle = _open(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(_holder(path))
    finally:
        os.close(handle)
    return None


def _folder() -> str:
    """The first that every user may write: by its mode and not by our own rights, so that all users agree."""
    for folder in FOLDERS:
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            continue
        if mode & stat.S_ISVTX and mode & stat.S_IWOTH:
            return folder
    raise Refusal("system", "none of %s is a folder that every user may write" % ", ".join(FOLDERS))


def _open(path: str) -> int:
    """The file, for reading alone: it is another user's where they were first, and a lock needs no more."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for more in (0, os.O_CREAT | os.O_EXCL, 0):
        try:
            handle = os.open(path, flags | more, 0o644)
        except (FileNotFoundError, FileExistsError):
            continue
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            break
        if more:
            os.fchmod(handle, 0o644)  # whatever the umask
        return handle
    raise Refusal("system", "%s is there and no file; remove it" % path)


def _take(handle: int, path: str, wait_s: float, steal: bool) -> bool:
    """Whether the lock was taken before the asker went away."""
    told: Optional[Table] = None
    until = time.monotonic() + (STEAL_S if steal else wait_s)
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            held = _holder(path)
        if held != told and steal:
            _kill(held)
        elif time.monotonic() >= until:
            raise Refusal("measuring", _said(held), {"who": held.get("who")})
        _tell({"waits": _said(held)} if held != told else {})
        told = held
        if _gone(POLL_S):
            return False


def _holder(path: str) -> Table:
    """What the one who holds the lock says of itself; empty where nobody that lives says anything."""
    folder = os.path.dirname(path)
    for name in sorted(os.listdir(folder)):
        if name.startswith(NAME + "."):
            about = _read(os.path.join(folder, name))
            if about and _is_holding(about["pid"]):
                return about
    return {}


def _read(path: str) -> Table:
    """A small table that another user may have written; what they say of a process that is not theirs is nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return {}
            values = json.loads(os.read(handle, MOST).decode("utf-8", "replace"))
        finally:
            os.close(handle)
        pid = values.get("pid") if isinstance(values, dict) else None
        if not isinstance(pid, int) or os.stat("%s/%d" % (PROC, pid)).st_uid != status.st_uid:
            return {}
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(values, user=_user(status.st_uid))


def _note(path: str, about: Dict[str, str]) -> str:
    """Leaves for people who holds the lock, in a file of this user's own."""
    note = "%s.%d" % (path, os.getuid())
    if os.path.lexists(note):
        os.unlink(note)
    values = dict(about, pid=os.getpid())
    handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    os.fchmod(handle, 0o644)
    os.write(handle, json.dumps(values).encode("utf-8")[:MOST])
    os.close(handle)
    return note


def _said(held: Table) -> str:
    if not held:
        return "somebody measures on it, and does not say who"
    return "%s measures on it (%s), since %s" % (held.get("who"), held.get("purpose"), held.get("since"))


def _kill(held: Table) -> None:
    pid = held.get("pid")
    try:
        if isinstance(pid, int):
            os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise Refusal(
            "not-ours", "%s; the process is of the user %s: only they or root can end it" % (_said(held), held["user"])
        )
    except ProcessLookupError:
        pass


def _is_holding(pid: object) -> bool:
    """Whether a process holds a lock on a file, and is one of ours: a number alone may be another's by now."""
    locks = re.findall(r"^\d+: FLOCK +ADVISORY +WRITE (\d+) ", read_text(os.path.join(PROC, "locks")), re.MULTILINE)
    return str(pid) in locks and re.search("dlx.deploy", read_text("%s/%s/cmdline" % (PROC, pid))) is not None


def _gone(within_s: float) -> bool:
    """Whether the asker goes away within so many seconds; what it sends is nothing to us."""
    ready, _, _ = select.select([0], [], [], within_s)
    return bool(ready) and not os.read(0, MOST)


def _tell(values: Table) -> None:
    sys.stderr.write(MARK + json.dumps(values) + "\n")
    sys.stderr.flush()


def _end_by(how: str) -> Callable[[int, object], None]:
    def handle(number: int, frame: object) -> None:
        raise _Ended(how)

    return handle


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
