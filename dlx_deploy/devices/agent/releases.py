"""The releases of a package on a board: put in place, made current, taken back, and cleared away."""

import base64
import binascii
import os
import re
import shutil
from typing import List, Optional

from .files import (
    Refusal,
    Table,
    digest_of,
    field_digest,
    field_number,
    field_root,
    field_table,
    field_text,
    read_table,
    settle,
    write,
    write_table,
)
from .lock import guarded, holder, unlock

__all__ = ["activate", "finish", "install", "mark", "partial", "prune", "releases", "rollback"]

PACKAGE, SIGNATURE, RECORD = "package.dlx", "package.dlx.sig", "release.json"
CURRENT, HISTORY, NEW = "current", "history.json", ".new-"
SCHEMA = 1
REMEMBERED = 100  # entries of the history
STATES = ("installed", "passed", "failed")
"""A release that is there; whose checks passed here; whose checks did not."""


def partial(asked: Table) -> Table:
    """What there is of a package: whether a release of it is whole, whether all of it has come, and how many bytes."""
    root, digest = field_root(asked), field_digest(asked)
    release, incoming = _package(root, digest), os.path.join(root, "incoming", digest)
    whole = [path for path in (release, _new(root, digest), incoming) if digest_of(path) == digest]
    found = [path for path in (*whole, incoming + ".part") if os.path.isfile(path)]
    return {
        "installed": release in whole,
        "come": bool(whole),
        "bytes": os.path.getsize(found[0]) if found else 0,
        "incoming": incoming,
    }


def install(asked: Table) -> Table:
    """Makes a release of the package that has come, whole or not at all; one that is there and whole stays.

    ``facts``: what the record says of it (name, version, target, file, from whom and when). ``signature``: the bytes
    of its signature in base64, if it has one.

    Raises:
        Refusal: what has come is not the package.
    """
    root, digest = field_root(asked), field_digest(asked)
    signature, facts = _signature(asked), field_table(asked, "facts")
    with guarded(root, field_text(asked, "token")):
        folder, incoming = _folder(root, digest), os.path.join(root, "incoming", digest)
        whole = digest_of(_package(root, digest)) == digest
        if not whole:
            _recover(root, digest)
            come = digest_of(incoming)
            if come != digest:
                raise Refusal("not-whole", "%s has SHA-256 %s, not its own; push again" % (incoming, come or "none"))
            if os.path.isdir(folder):  # of a release that was damaged: its bytes alone are replaced
                os.replace(incoming, _package(root, digest))
            else:
                _make(root, digest, incoming)
        if signature:
            write(os.path.join(folder, SIGNATURE), signature)
        if not read_table(os.path.join(folder, RECORD)) or not whole:
            _record(root, digest, dict(facts, number=_next(root), state="installed", checks={}, why=""))
        return {"package": _package(root, digest), "sent": not whole}


def mark(asked: Table) -> Table:
    """Writes into a release's record what its checks gave: ``state``, ``why`` (of one that failed), ``checks``."""
    root, digest, state = field_root(asked), field_digest(asked), field_text(asked, "state")
    if state not in STATES:
        raise Refusal("question", "state is %r; must be one of %s" % (state, ", ".join(STATES)))
    with guarded(root, field_text(asked, "token")):
        record = _known(root, digest)
        record.update(state=state, why=str(asked.get("why") or ""), checks=field_table(asked, "checks"))
        return _record(root, digest, record)


def activate(asked: Table) -> Table:
    """Makes a release current, by one rename.

    Raises:
        Refusal: there is none, or its checks have not passed here.
    """
    root, digest = field_root(asked), field_digest(asked)
    with guarded(root, field_text(asked, "token")):
        record = _known(root, digest)
        if record.get("state") != "passed":
            text = "the release %s is %s; only one whose checks passed becomes current" % (digest, record.get("state"))
            raise Refusal("not-passed", text)
        before, history = _current(root), _history(root)
        if before != digest:
            # Before the link: what stands behind the current one in the history never came to be.
            write_table(os.path.join(root, HISTORY), {"schema": SCHEMA, "current": [*history, digest][-REMEMBERED:]})
            _point(root, digest)
        return {"current": digest, "before": before}


def finish(asked: Table) -> Table:
    """What follows the checks of a release, in one question: it is marked, and where they passed made current, and the
    old ones are removed; then the lock is given back. Fields as of ``mark``, ``activate`` and ``prune``."""
    record = mark(asked)
    removed = []  # type: object
    if record.get("state") == "passed":
        activate(asked)
        removed = prune(asked)["removed"]
    unlock(asked)
    return dict(releases(asked), removed=removed)


def rollback(asked: Table) -> Table:
    """Makes the release current that was before this one, as often as there is one whose bytes are still its own.

    Raises:
        Refusal: there is none.
    """
    root = field_root(asked)
    with guarded(root, field_text(asked, "token")):
        now, history = _current(root), _history(root)
        usable = (i for i in reversed(range(len(history) - 1)) if history[i] != now and _usable(root, history[i]))
        at = next((i for i in usable if digest_of(_package(root, history[i])) == history[i]), None)
        if now is None or at is None:
            raise Refusal("no-earlier", "%s has no release before the current one; push one" % root)
        target = history[at]
        _point(root, target)
        write_table(os.path.join(root, HISTORY), {"schema": SCHEMA, "current": history[: at + 1]})
        return {"from": _told(root, now), "to": _told(root, target)}


def releases(asked: Table) -> Table:
    """All releases, the newest first, which is current and which was before it, and who works here, if anybody."""
    root = field_root(asked)
    held = holder(root) or {}
    return {
        "releases": [_told(root, digest) for digest in _installed(root)],
        "current": _current(root),
        "before": _before(root),
        "lock": {name: held.get(name) for name in ("who", "purpose", "since")} if held else None,
    }


def prune(asked: Table) -> Table:
    """Removes releases but the ``keep`` newest whose checks passed, the current one, that before it, and ``digest``.

    So it does with what else lies about: what was being sent, and what a push that was killed has left.
    """
    root, keep, digest = field_root(asked), int(field_number(asked, "keep", 1)), field_digest(asked)
    with guarded(root, field_text(asked, "token")):
        found = _installed(root)
        passed = [one for one in found if _usable(root, one)]
        kept = {digest, _current(root), _before(root), *passed[:keep]}
        old = [one for one in found if one not in kept]
        left = [n for n in os.listdir(os.path.join(root, "releases")) if n.startswith(NEW)]
        for name in (*old, *left):
            shutil.rmtree(os.path.join(root, "releases", name), ignore_errors=True)  # what stays costs room alone
        shutil.rmtree(os.path.join(root, "incoming"), ignore_errors=True)
        there = _installed(root)
        return {"removed": [one for one in old if one not in there], "kept": there}


def _signature(asked: Table) -> bytes:
    if not asked.get("signature"):
        return b""
    try:
        return base64.b64decode(field_text(asked, "signature"), validate=True)
    except binascii.Error:
        raise Refusal("question", "signature is not base64")


def _make(root: str, digest: str, incoming: str) -> None:
    """A folder is a release only under its own name, which it gets last."""
    new = _new(root, digest)
    os.makedirs(os.path.dirname(new), exist_ok=True)
    os.replace(incoming, new)
    settle(os.path.dirname(new))
    os.rename(os.path.dirname(new), _folder(root, digest))
    settle(os.path.join(root, "releases"))


def _recover(root: str, digest: str) -> None:
    """What was killed between its two renames goes on from the first."""
    new = _new(root, digest)
    if os.path.isfile(new):
        os.makedirs(os.path.join(root, "incoming"), exist_ok=True)
        os.replace(new, os.path.join(root, "incoming", digest))


def _point(root: str, digest: str) -> None:
    link, aside = os.path.join(root, CURRENT), os.path.join(root, ".current")
    if os.path.exists(link) and not os.path.islink(link):
        raise Refusal("foreign", "%s is there and no link; move it away, or name another folder" % link)
    if os.path.lexists(aside):
        os.unlink(aside)
    os.symlink(os.path.join("releases", digest), aside)
    os.replace(aside, link)
    settle(root)


def _current(root: str) -> Optional[str]:
    try:
        digest = os.path.basename(os.readlink(os.path.join(root, CURRENT)))
    except OSError:
        return None
    return digest if re.match(r"[0-9a-f]{64}\Z", digest) else None


def _history(root: str) -> List[str]:
    """What current was, the newest last: it ends with what it is."""
    now, told = _current(root), read_table(os.path.join(root, HISTORY)).get("current")
    history = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    if now is None:
        return []
    if now not in history:
        return [*history, now]
    return history[: len(history) - history[::-1].index(now)]


def _before(root: str) -> Optional[str]:
    now = _current(root)
    earlier = [one for one in _history(root)[:-1] if one != now and _usable(root, one)]
    return earlier[-1] if earlier else None


def _usable(root: str, digest: str) -> bool:
    return read_table(os.path.join(_folder(root, digest), RECORD)).get("state") == "passed"


def _installed(root: str) -> List[str]:
    try:
        names = os.listdir(os.path.join(root, "releases"))
    except OSError:
        return []
    return sorted((n for n in names if re.match(r"[0-9a-f]{64}\Z", n)), key=lambda n: -_number(root, n))


def _number(root: str, digest: str) -> int:
    """The place of a release in the order in which they came: clocks of boards go wrong, counting does not."""
    number = read_table(os.path.join(_folder(root, digest), RECORD)).get("number")
    return number if isinstance(number, int) else 0


def _next(root: str) -> int:
    return 1 + max([0, *(_number(root, one) for one in _installed(root))])


def _known(root: str, digest: str) -> Table:
    record = read_table(os.path.join(_folder(root, digest), RECORD))
    if not record:
        raise Refusal("no-release", "%s has no release %s; push it" % (root, digest))
    return record


def _record(root: str, digest: str, values: Table) -> Table:
    write_table(os.path.join(_folder(root, digest), RECORD), dict(values, schema=SCHEMA, digest=digest))
    return values


def _told(root: str, digest: str) -> Table:
    return dict(read_table(os.path.join(_folder(root, digest), RECORD)), digest=digest)


def _folder(root: str, digest: str) -> str:
    return os.path.join(root, "releases", digest)


def _package(root: str, digest: str) -> str:
    return os.path.join(_folder(root, digest), PACKAGE)


def _new(root: str, digest: str) -> str:
    """The package of a release that is being made."""
    return os.path.join(root, "releases", NEW + digest, PACKAGE)
