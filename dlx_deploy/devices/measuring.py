"""The measuring lock of a board, held from here: nobody else times anything there meanwhile; its power mode is told.

``with measuring(connection, "bench of digits"): …`` That another one measures is an error with their name, unless this
one waits or steals. The lock is the board's own (``agent/measuring``): it is free as soon as this process or the
connection ends.
"""

from __future__ import annotations

import contextlib
import getpass
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from dlx_deploy.devices.agent.measuring import MARK
from dlx_deploy.devices.agent.sending import agent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError, BoardLost
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line, shortened

__all__ = ["ALONE", "Manners", "PowerModes", "measuring", "who_asks"]

LOOK_S, SILENCE_S, RELEASE_S, MEANWHILE_S = 0.2, 120.0, 10.0, 30.0


class Manners(msgspec.Struct, frozen=True):
    """What is done where another one measures on the board: wait so many seconds until it is free, or ``steal`` it.

    ``power_mode``: the mode in which the board is to be measured, by name; empty: any.
    """

    wait_s: float = 0.0
    steal: bool = False
    power_mode: str = ""


ALONE = Manners()


class PowerModes(msgspec.Struct, frozen=True):
    """``mode``: that which is set, ``None`` where the board has none; ``modes``: name → number, of all that it has."""

    mode: str | None = None
    modes: Mapping[str, int] = msgspec.field(default_factory=dict)

    def warning(self, wanted: str) -> str:
        """What to tell somebody who measures in the mode ``wanted``; empty if it is that one, or none is."""
        if not wanted or self.mode == wanted:
            return ""
        if self.mode is None:
            return f"it has no power mode that could be read, and {wanted} is asked for; measured is what it is now"
        number = self.modes.get(wanted)
        known = ", ".join(map(line, self.modes))
        remedy = (
            f"set it there with: sudo nvpmodel -m {number}" if number is not None else f"the modes that it has: {known}"
        )
        return (
            f"it is in power mode {line(self.mode)}, not {wanted}: what is measured is of {line(self.mode)}; {remedy}"
        )


def who_asks() -> str:
    """``user@machine``, of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        user = "somebody"
    return line(f"{user}@{platform.node()}")[:100]


@contextlib.contextmanager
def measuring(
    connection: Connection,
    purpose: str,
    manners: Manners = ALONE,
    say: Callable[[str], None] = lambda text: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[PowerModes]:
    """Inside, nobody else measures on the board behind ``connection``; gives its power modes.

    ``meanwhile``: done now and then while one waits, as where another lock is to be kept.

    ``say`` hears whom one waits for, that the power mode is another one than asked for, and, at the end, that the lock
    was taken or lost meanwhile.

    Raises:
        BoardError: another one measures there, or the board cannot be asked.
    """
    holder = _Holder(connection, purpose, manners, say)
    holder.start()
    try:
        modes = holder.entered(meanwhile)
        if manners.steal:
            say(f"{connection.name}: if somebody measured there, what they run may still go on beside this")
        if warning := modes.warning(manners.power_mode):
            say(f"warning: {connection.name}: {warning}")
        yield modes
    finally:
        holder.leave()


class _Holder(threading.Thread):
    """Asks the board for the lock, and hears how that goes."""

    def __init__(self, connection: Connection, purpose: str, manners: Manners, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._connection, self._say = connection, say
        self._asked = {
            "command": "measure",
            "who": who_asks(),
            "purpose": purpose,
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "wait_s": manners.wait_s,
            "steal": manners.steal,
        }
        self._holds: JsonTable | None = None
        self._modes = PowerModes()
        self._answer: JsonTable = {}
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._answer = self._connection.python(agent_source(), self._asked, timeout_s=SILENCE_S, heard=self._heard)
        except Exception as e:  # told by who waits for this thread
            self._error = e

    def entered(self, meanwhile: Callable[[], object]) -> PowerModes:
        """The board's power modes, once the lock is held."""
        at = time.monotonic() + MEANWHILE_S
        while self._holds is None:
            self.join(LOOK_S)
            if not self.is_alive() and self._holds is None:
                raise self._refusal()
            if time.monotonic() >= at:
                meanwhile()
                at = time.monotonic() + MEANWHILE_S
        return self._modes

    def leave(self) -> None:
        """Give the lock back; that it was lost before is told, whoever took it."""
        if self._holds is None:
            return
        released = self.is_alive() and self._release(self._holds)
        ended = self._answer.get("ok", {}).get("ended") if isinstance(self._answer.get("ok"), dict) else None
        if ended in ("stolen", "gone") or not released:
            how = "somebody took the measuring lock meanwhile (--steal)"
            if ended != "stolen":
                how = "the measuring lock was lost meanwhile (its process there ended, or its connection)"
            self._say(f"warning: {self._connection.name}: {how}; what was measured may have had company: measure again")

    def _release(self, holds: JsonTable) -> bool:
        """Whether the lock was held until now."""
        try:
            said = self._connection.python(agent_source(), {"command": "release", **holds}, timeout_s=SILENCE_S)
        except BoardError:  # it is lost, and the lock is free by that
            return False
        self.join(RELEASE_S)
        return said.get("ok") == {"released": True}

    def _heard(self, text: str) -> None:
        if not text.startswith(MARK):
            return
        try:
            told = msgspec.json.decode(text[len(MARK) :], type=_Told)
        except msgspec.DecodeError:
            return
        if told.waits:
            self._say(f"{self._connection.name}: {line(told.waits)}; waiting until it is free")
        if told.holds is not None:
            self._modes, self._holds = told.power, {"pid": told.holds}

    def _refusal(self) -> Exception:
        if self._error is not None:
            return self._error
        fault = self._answer.get("fault")
        name = self._connection.name
        if isinstance(fault, dict):
            text, remedy = line(str(fault.get("text"))), ""
            if fault.get("kind") == "measuring":
                remedy = "; wait for them with --wait SECONDS, or take it from them with --steal"
            return BoardError(f"{name}: {text}{remedy}")
        if self._answer:
            return BoardLost(f"{name}: the connection ended while the measuring lock was asked for; try again")
        return BoardError(f"{name}: answers {shortened(self._answer)} to measure; try again")


class _Told(msgspec.Struct, frozen=True):
    """A line that the board says while it is asked."""

    waits: str = ""
    holds: int | None = None
    power: PowerModes = PowerModes()
