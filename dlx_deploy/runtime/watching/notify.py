"""Words to systemd: the notification protocol of sd_notify(3), a datagram to the socket that the service was given."""

from __future__ import annotations

import os
import socket
from typing import Mapping, Optional

from ..words import line

__all__ = ["READY", "STOPPING", "WATCHDOG", "Notifier"]

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


class Notifier:
    """Tells the supervisor that ``environ`` names, and nobody where it names none.

    ``watchdog_s``: how often it wants to hear ``WATCHDOG``, or it kills; ``None``: it does not.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        known = hasattr(socket, "AF_UNIX") and len(address) > 1 and address[0] in "/@"  # not vsock:…, of other machines
        self._address = (f"\0{address[1:]}" if address[0] == "@" else address) if known else None
        self.watchdog_s = _watchdog_s(environ) if self._address else None

    @property
    def listens(self) -> bool:
        """Whether there is a supervisor."""
        return self._address is not None

    def tell(self, state: str, status: str = "") -> bool:
        """Sends ``state``, and ``status`` for people; whether it was taken. A supervisor that is gone is no fault."""
        if self._address is None:
            return False
        message = f"{state}\nSTATUS={line(status)}" if status else state
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)  # its queue is full: it hears the next one
                one.sendto(message.encode("utf-8"), self._address)
        except OSError:
            return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> Optional[float]:
    micros, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not micros.isascii() or not micros.isdigit() or not int(micros) or pid not in ("", str(os.getpid())):
        return None
    return int(micros) / 1e6
