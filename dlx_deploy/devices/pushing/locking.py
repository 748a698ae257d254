"""The lock of a package's folder on a board, held while one pushes; that of a push which died is taken over."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.measuring import Manners, who_asks
from dlx_deploy.errors import BoardRefused, DlxError
from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["Held", "is_gone", "locked"]

POLL_S = 2.0
BOOT, PIDS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass
class Held:
    """A lock that is held: the ``token`` that the agent asks for, what it ``answered`` when it was taken, whether it
    was ``released`` since."""

    token: str
    answered: JsonTable
    released: bool = False


@contextlib.contextmanager
def locked(
    agent: Agent, purpose: str, manners: Manners, say: Callable[[str], None], digest: str | None = None
) -> Iterator[Held]:
    """Inside, nobody else changes the releases there. ``digest``: of the package that it is about.

    ``manners``: what is done where another one does: waited for, or their lock stolen.

    Raises:
        BoardRefused: another one works there, and did not end in time; they are named.
        BoardError: the board cannot be asked.
    """
    asked = {"token": secrets.token_hex(16), "who": who_asks(), "purpose": purpose, "owner": _me(), "digest": digest}
    held = Held(str(asked["token"]), _take(agent, asked, manners, say))
    try:
        yield held
    finally:
        if not held.released:
            with contextlib.suppress(DlxError):  # whatever ended this says why; a lock that stays is stale by itself
                agent.ask("unlock", token=held.token)


def is_gone(owner: Mapping[str, object]) -> bool:
    """Whether ``owner`` was a process of this machine that has ended; of another machine nobody knows.

    Without ``/proc`` nothing tells two machines of one name apart: nobody is taken for gone there.
    """
    mine = _me()
    if not mine["boot"] or owner.get("host") != mine["host"]:
        return False
    if owner.get("boot") != mine["boot"]:
        return True
    pid = owner.get("pid")
    if owner.get("pids") != mine["pids"] or not isinstance(pid, int) or pid < 1:
        return False  # of a container's numbering
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _take(agent: Agent, asked: Mapping[str, object], manners: Manners, say: Callable[[str], None]) -> JsonTable:
    deadline, told = time.monotonic() + manners.wait_s, False
    how: dict[str, object] = {"steal": manners.steal}
    while True:
        try:
            taken = agent.ask("lock", **asked, since=time.strftime("%Y-%m-%d %H:%M:%S %z"), **how)
        except BoardRefused as e:
            if e.kind != "locked":
                raise
            owner = e.fault.get("owner")
            if isinstance(owner, Mapping) and owner != how.get("steal_from") and is_gone(owner):
                how["steal_from"] = owner  # and from nobody else who holds it by then
                continue
            if time.monotonic() >= deadline:
                raise BoardRefused(f"{e}; wait for them with --wait SECONDS", e.kind, e.fault) from e
            if not told:
                say(f"waiting: {e}")
            told = True
            time.sleep(POLL_S)
            continue
        if taken.get("stolen_from") and manners.steal:
            say(f"warning: the lock was taken from {taken['stolen_from']}, whose work there was ended")
        return taken


def _me() -> dict[str, object]:
    """This process, so that another of this machine can tell whether it has ended."""
    pids = os.readlink(PIDS) if PIDS.exists() else ""
    boot = BOOT.read_text(encoding="utf-8").strip() if BOOT.exists() else ""
    return {"host": socket.gethostname(), "boot": boot, "pid": os.getpid(), "pids": pids}
