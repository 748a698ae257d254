"""A bounded HTTP/1.1 server: a thread for each connection, and no more connections than it was told."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from ..errors import InputError
from ..words import line
from .connection import Handler, converse
from .messages import Refused, fault_response
from .stream import Ended, Limits, Room, Stream

__all__ = ["Server", "Settings", "listen"]

BACKLOG = 128
PAUSE_S = 0.1  # where the system has no more descriptors for now
LEAVING = math.inf  # in the place of a time since when: the connection was ended, and its thread is on its way out
BUSY = Refused(503, "the server has as many connections as it may; try again", ("Retry-After", "1"))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """``connections``: at most so many at a time; where one more comes, the one that is idle longest gives way."""

    connections: int = 64
    limits: Limits = field(default_factory=Limits)
    tls: Optional[ssl.SSLContext] = None


class Server:
    """Serves ``handler`` on ``listener``, which it owns, from ``run`` until ``stop`` is called by another thread."""

    def __init__(self, listener: socket.socket, handler: Handler, settings: Settings) -> None:
        self._listener, self._handler, self._settings = listener, handler, settings
        self._lock = threading.Lock()
        self._open: Dict[socket.socket, Optional[float]] = {}
        """The connections; since when each has waited for a request, or ``LEAVING``; ``None``: in the middle of one."""
        self._none_left = threading.Condition(self._lock)
        self._room = Room(max(settings.limits.total_bytes, settings.limits.body_bytes))
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        listener.setblocking(False)

    @property
    def address(self) -> Tuple[str, int]:
        """The host and port that it listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def busy(self) -> int:
        """How many connections are in the middle of a request."""
        with self._lock:
            return sum(since is None for since in self._open.values())

    def run(self) -> None:
        """Takes connections until it is stopped."""
        with selectors.DefaultSelector() as selector:
            for one in (self._listener, self._woken):
                selector.register(one, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.fileobj is self._listener:
                        self._accept()

    def stop(self) -> None:
        """Lets ``run`` return; what is being answered is answered yet."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b".")

    def drain(self, timeout_s: float) -> bool:
        """Takes no more connections, ends those that wait, and waits for the others; whether all were answered."""
        self.stop()
        self._listener.close()
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._open:
                late = time.monotonic() >= deadline
                for sock, since in self._open.items():
                    if since is not None or late:
                        _shut(sock)
                if late:
                    return False
                self._none_left.wait(0.1)
        return True

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                _log.warning("no connection can be taken: %s", line(str(e)))
                time.sleep(PAUSE_S)
            return
        if not self._make_room():
            _turn_away(sock)
            return
        with self._lock:
            self._open[sock] = time.monotonic()
        try:
            threading.Thread(target=self._serve, args=(sock,), name="connection", daemon=True).start()
        except RuntimeError as e:  # the system has no more threads for now; of the connections that there are, one ends
            _log.warning("no connection can be taken: %s", line(str(e)))
            with self._lock:
                del self._open[sock]
                self._none_left.notify_all()
            _turn_away(sock)

    def _make_room(self) -> bool:
        """Whether one more connection may be taken; if need be, one ends that waits for its next request."""
        with self._lock:
            if len(self._open) < self._settings.connections:
                return True
            idle = {sock: since for sock, since in self._open.items() if since is not None and since < LEAVING}
            if not idle:
                return False
            oldest = min(idle, key=idle.__getitem__)
            _shut(oldest)
            self._open[oldest] = LEAVING  # nobody else gives way for it
            return len(self._open) < 2 * self._settings.connections

    def _serve(self, sock: socket.socket) -> None:
        """A connection's thread."""
        connected = sock
        try:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = self._secured(sock)
            converse(
                Stream(connected, self._settings.limits, self._room),
                self._handler,
                lambda: self._stopping,
                lambda waiting: self._waits(connected, waiting),
            )
        except (Ended, OSError) as e:
            _log.debug("a connection ended: %s", line(str(e)))
        finally:
            with contextlib.suppress(OSError):
                connected.close()
            with self._lock:
                self._open.pop(connected, None)
                self._none_left.notify_all()

    def _secured(self, sock: socket.socket) -> socket.socket:
        if self._settings.tls is None:
            return sock
        sock.settimeout(self._settings.limits.head_s)
        secured = self._settings.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:  # it has taken the descriptor
            self._open[secured] = self._open.pop(sock)
        try:
            secured.do_handshake()
        except BaseException:
            with self._lock:
                self._open.pop(secured)
            secured.close()
            raise
        return secured

    def _waits(self, sock: socket.socket, waiting: bool) -> None:
        self._open[sock] = time.monotonic() if waiting else None
        if waiting and self._stopping:
            _shut(sock)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` and ``port`` (0: any that is free).

    Raises:
        InputError: there is no such address here, or it is taken or not permitted.
    """
    where = f"port {port} on {line(host)}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (socket.gaierror, UnicodeError) as e:
        raise InputError(f"host is {line(host)!r}, which is no address of this machine ({e}); try 127.0.0.1") from e
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise InputError(f"{where} is taken; give another with --port, or 0 for any that is free") from e
        if e.errno == errno.EACCES:
            raise InputError(f"{where} is not permitted to this user; give one of 1024 or more with --port") from e
        raise InputError(f"{where} cannot be listened on ({e.strerror}); give an address of this machine") from e


def _shut(sock: socket.socket) -> None:
    """Ends a connection under the thread that reads it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TLS too, whose own would change what its thread uses


def _turn_away(sock: socket.socket) -> None:
    """Says that there is no room, as far as that is heard at once."""
    (body,) = fault_response(BUSY).parts
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(head.encode("ascii") + b"Retry-After: 1\r\nConnection: close\r\n\r\n" + bytes(body))
    sock.close()
