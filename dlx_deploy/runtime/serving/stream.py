"""A connection's bytes under limits: how much may come, and how long it may take, both ways."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Optional, Sequence

import numpy as np

from ..records import record
from .messages import Body, Refused

__all__ = ["Ended", "Limits", "Room", "Stream"]

PIECE = 65_536
JOINED = 262_144  # bytes of an answer that are sent at once: a copy is cheaper than another packet
CHUNK_LINE = 64
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
STEP = 1024**2  # bytes of a body for which memory is asked at a time
LINGER_S, LINGER_BYTES = 2.0, 4 * 1024**2


@record
class Limits:
    """Of every connection: bytes and seconds. ``slowest``: bytes a second that a body must come, or be taken, at least.

    ``idle_s``: between two requests; ``head_s``: for a request's head, and what each step of a body or answer may take
    beside its bytes. ``total_bytes``: of all bodies that are here at a time.
    """

    head_bytes: int = 16_384
    body_bytes: int = 64 * 1024**2
    total_bytes: int = 256 * 1024**2
    idle_s: float = 75.0
    head_s: float = 10.0
    slowest: int = 65_536

    def seconds(self, size: int) -> float:
        """How long ``size`` bytes may take."""
        return self.head_s + size / self.slowest


class Ended(Exception):
    """Raised where the peer is gone, or was too slow to be waited for; nobody is left to answer."""


class Room:
    """The memory that the bodies of all connections share: many that are allowed one by one are too many together."""

    def __init__(self, size: int) -> None:
        self._left, self._lock = size, threading.Lock()

    def take(self, size: int) -> None:
        """Takes ``size`` bytes.

        Raises:
            Refused: 503: so many are not left.
        """
        with self._lock:
            if size > self._left:
                raise Refused(503, "the server holds as much of other requests as it may", ("Retry-After", "1"))
            self._left -= size

    def give_back(self, size: int) -> None:
        """Gives them back."""
        with self._lock:
            self._left += size


class Stream:
    """The bytes of the connected socket ``sock``, which it owns; used by one thread. ``room``: what all share."""

    def __init__(self, sock: socket.socket, limits: Limits, room: Room) -> None:
        self._sock, self._limits, self._room = sock, limits, room
        self._buffer = bytearray()
        self._held = 0  # bytes of the room

    def wait(self) -> bool:
        """Waits for the next request; whether its first bytes are here, or the connection is done.

        Raises:
            Ended: it broke.
        """
        while self._buffer[:2] == b"\r\n":  # behind a body some clients send an empty line
            del self._buffer[:2]
        return bool(self._buffer) or self._more(time.monotonic() + self._limits.idle_s)

    def head(self) -> bytes:
        """The next request's head, without the empty line behind it.

        Raises:
            Refused: 408 it does not come, 431 it is too long. Ended: the connection broke.
        """
        deadline, seen = time.monotonic() + self._limits.head_s, 0
        while True:
            end = self._buffer.find(b"\r\n\r\n", max(0, seen - 3))
            if end >= 0 and end <= self._limits.head_bytes:
                head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return head
            seen = len(self._buffer)
            if end >= 0 or seen > self._limits.head_bytes:
                raise Refused(431, f"the request's head has more than {self._limits.head_bytes} bytes")
            self._need(deadline)

    def body(self, length: Optional[int]) -> memoryview:
        """The request's body, of ``length`` bytes or in chunks: its reader's own.

        Memory is taken as bytes come, and they must come: who announces much and sends little holds nothing up.

        Raises:
            Refused: 400 chunks that are none, 408 it does not come, 413 it is too long, 503 no memory is left for it.
            Ended: the connection broke.
        """
        began = time.monotonic()
        if length is None:
            return self._chunks(began)
        self.check_length(length)
        return self._exactly(length, began)

    def forget(self) -> None:
        """Nobody needs the body any longer."""
        self._room.give_back(self._held)
        self._held = 0

    def _hold(self, size: int) -> None:
        self._room.take(size)
        self._held += size

    def check_length(self, length: int) -> None:
        """Refuses a body that would be too long.

        Raises:
            Refused: 413.
        """
        if length > self._limits.body_bytes:
            raise Refused(413, f"the body has {length} bytes; at most {self._limits.body_bytes}: send fewer at a time")

    def send(self, parts: Sequence[Body]) -> None:
        """Sends ``parts``, one behind the other.

        Raises:
            Ended: the peer does not take them, or is gone.
        """
        size = sum(len(part) for part in parts)
        deadline = time.monotonic() + self._limits.seconds(size)
        for piece in [b"".join(parts)] if size <= JOINED else parts:
            try:
                self._sock.settimeout(max(0.001, deadline - time.monotonic()))
                self._sock.sendall(piece)
            except OSError as e:
                raise Ended(str(e)) from e

    def linger(self) -> None:
        """Ends the connection so that the peer gets the answer, though it may still be sending: takes what comes."""
        deadline, taken = time.monotonic() + LINGER_S, 0
        with contextlib.suppress(OSError, Ended):
            self._sock.shutdown(socket.SHUT_WR)
            while taken < LINGER_BYTES and time.monotonic() < deadline and self._more(deadline):
                taken += len(self._buffer)
                self._buffer.clear()

    def _chunks(self, began: float) -> memoryview:
        body = bytearray()
        while True:
            match = CHUNK.fullmatch(self._line(self._until(began, len(body))))
            if match is None:
                raise Refused(400, "the body's chunks are none of HTTP/1.1")
            size = int(match.group(1), 16)
            self.check_length(len(body) + size)
            if not size:
                break
            body += self._exactly(size, began, len(body))
            if self._line(self._until(began, len(body))):
                raise Refused(400, "a chunk of the body is longer than it says")
        deadline, taken = time.monotonic() + self._limits.head_s, 0
        while True:  # trailers, of which nothing is used
            line = self._line(deadline, self._limits.head_bytes)
            taken += len(line) + 2
            if not line:
                return memoryview(body)
            if taken > self._limits.head_bytes:
                raise Refused(431, f"the fields behind the body have more than {self._limits.head_bytes} bytes")

    def _until(self, began: float, taken: int) -> float:
        """When the next bytes must be here of a body that ``began`` then, and of which so many have come."""
        return began + self._limits.seconds(taken)

    def _line(self, deadline: float, most: int = CHUNK_LINE) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n", 0, most + 2)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                return line
            if len(self._buffer) >= most + 2:
                raise Refused(400, f"a line between the body's chunks has more than {most} bytes")
            self._need(deadline)

    def _exactly(self, size: int, began: float, before: int = 0) -> memoryview:
        """``size`` bytes behind ``before`` others of a body, received where they stay."""
        view = np.empty(size, np.uint8).data  # the system gives this memory when it is written to
        taken = min(size, len(self._buffer))
        self._hold(taken)
        view[:taken] = self._buffer[:taken]
        del self._buffer[:taken]
        while taken < size:
            step = min(size - taken, STEP)
            self._hold(step)
            end = taken + step
            while taken < end:
                taken += self._received(view[taken:end], self._until(began, before + taken))
        return view

    def _received(self, into: memoryview, deadline: float) -> int:
        """How many bytes came, at least one."""
        try:
            self._patience(deadline)
            count = self._sock.recv_into(into)
        except OSError as e:
            raise self._fault(e) from e
        if not count:
            raise Ended("the connection ended inside a body")
        return count

    def _need(self, deadline: float) -> None:
        """At least one byte more."""
        if not self._more(deadline, asked=True):
            raise Ended("the connection ended inside a request")

    def _more(self, deadline: float, asked: bool = False) -> bool:
        try:
            self._patience(deadline)
            data = self._sock.recv(PIECE)
        except OSError as e:
            if asked:
                raise self._fault(e) from e
            raise Ended(str(e)) from e
        self._buffer += data
        return bool(data)

    def _patience(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("too slow")
        self._sock.settimeout(left)

    def _fault(self, error: OSError) -> Exception:
        """A peer that is slow hears so; one that is gone does not."""
        if isinstance(error, socket.timeout):
            return Refused(408, "the request did not come in time; send it faster, or in smaller parts")
        return Ended(str(error))
