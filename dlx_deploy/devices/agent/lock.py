"""Who works on the board's releases, so that two do not at once, and so that nobody waits for one who is gone.

A lock is stale after a reboot, and otherwise once nothing of its holder has run here for ``LEASE_S``: no call of the
agent with its token, no bytes that come in, and no process whose number is in ``lock.pid`` (a self-test that takes
minutes). The clock is the system's since its start, which nobody sets.
"""

import fcntl
import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import Iterator, Optional

from .files import Refusal, Table, field_number, field_root, field_table, field_text, read_table, read_text, write_table

__all__ = ["LEASE_S", "guarded", "lock", "unlock", "working"]

LEASE_S = 120
GUARD, LOCK, WORKER = ".guard", "lock", "lock.pid"
PROC = "/proc"
MOST_OWNER = 1000  # characters of what a holder says of itself


@contextmanager
def guarded(root: str, token: str = "") -> Iterator[None]:
    """One process of the agent at a time; with a ``token`` its lock is held, and held on.

    Raises:
        Refusal: the lock is no longer, or was never, that of ``token``.
    """
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, GUARD), "ab") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # freed by the system if this process dies
        if token:
            held = holder(root)
            if not held or held.get("token") != token:
                by = "; it is held by %s" % held.get("who") if held else ""
                raise Refusal("not-held", "the lock of %s was lost%s; push again" % (root, by))
            _write(root, held)
        yield


def lock(asked: Table) -> Table:
    """Takes the lock. ``token``: the holder's secret; ``who``, ``purpose``: for people; ``owner``: for programs.

    ``steal``: take it from whoever has it; ``steal_from``: from the one whose ``owner`` is that, and no other. A
    process that runs for them is ended.

    Raises:
        Refusal: another one holds it: who, for what, and since when.
    """
    root, token, who = field_root(asked), field_text(asked, "token"), field_text(asked, "who")
    owner, since, owner_gone = field_table(asked, "owner"), field_text(asked, "since"), field_table(asked, "steal_from")
    if len(repr(owner)) + len(who) > MOST_OWNER:
        raise Refusal("question", "owner and who are too long; at most %d characters" % MOST_OWNER)
    with guarded(root):
        held = holder(root)
        if held and held.get("token") != token:
            if not asked.get("steal") and not (owner_gone and owner_gone == held.get("owner")):
                raise _refused(root, held)
            _end(root)
        purpose = field_text(asked, "purpose")
        entry: Table = {"who": who, "purpose": purpose, "owner": owner, "since": since, "token": token}
        _write(root, entry)
        return {"stolen_from": held.get("who") if held and held.get("token") != token else None}


def unlock(asked: Table) -> Table:
    """Gives the lock back, if it is still that of ``token``; a process that still runs for it is ended."""
    root, token = field_root(asked), field_text(asked, "token")
    with guarded(root):
        held = read_table(os.path.join(root, LOCK))
        if held.get("token") != token:
            return {"released": False}
        _end(root)
        return {"released": True}


def working(asked: Table) -> Table:
    """Says that the holder still works: renews the lock of ``token``, and names the process that works, if one does."""
    root = field_root(asked)
    with guarded(root, field_text(asked, "token")):
        return {"pid": _worker(root)}


def holder(root: str) -> Optional[Table]:
    """The lock's entry, ``None`` where nobody holds it any more."""
    held = read_table(os.path.join(root, LOCK))
    if not held or held.get("boot") != _boot():
        return None
    age = time.monotonic() - field_number(held, "renewed_s", 0)
    return held if age < LEASE_S or _worker(root) or _receives(root) else None


def _refused(root: str, held: Table) -> Refusal:
    text = "%s works on %s: %s, since %s" % (held.get("who"), root, held.get("purpose"), held.get("since"))
    return Refusal("locked", text, {"owner": held.get("owner"), "who": held.get("who")})


def _write(root: str, entry: Table) -> None:
    write_table(os.path.join(root, LOCK), dict(entry, boot=_boot(), renewed_s=time.monotonic()))


def _forget(root: str) -> None:
    for name in (LOCK, WORKER):
        if os.path.exists(os.path.join(root, name)):
            os.unlink(os.path.join(root, name))


def _worker(root: str) -> Optional[int]:
    """The process that works for the holder, if it lives; another one with its number has no package of ours to run."""
    pid = read_text(os.path.join(root, WORKER))
    if not pid.isdigit():
        return None
    return int(pid) if os.path.join(root, "releases", "") in read_text("%s/%s/cmdline" % (PROC, pid)) else None


def _receives(root: str) -> bool:
    """Whether something was written a moment ago to what is being sent."""
    for folder, _, names in os.walk(os.path.join(root, "incoming")):  # wheels have a folder of their own
        for name in names:
            with suppress(OSError):  # it came whole meanwhile, and has another name
                if 0 <= time.time() - os.stat(os.path.join(folder, name)).st_mtime < LEASE_S:
                    return True
    return False


def _end(root: str) -> None:
    pid = _worker(root)
    if pid:
        with suppress(OSError):  # it has ended by itself, or is another user's
            os.kill(pid, signal.SIGTERM)
    _forget(root)


def _boot() -> str:
    return read_text(os.path.join(PROC, "sys/kernel/random/boot_id"))
