"""The releases of a package on a board: put in place, made current, taken back, and cleared away."""

import base64
import binascii
import os
import shutil

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
from .layout import (
    CURRENT,
    HISTORY,
    NEW,
    RECORD,
    before_current,
    current_of,
    folder_of,
    history_of,
    installed_in,
    is_usable,
    known_record,
    new_package,
    next_number,
    package_of,
    told_of,
)
from .lock import guarded, holder, unlock

__all__ = ["activate", "finish", "install", "mark", "partial", "prune", "releases", "rollback"]

SIGNATURE = "package.dlx.sig"
SCHEMA = 1
REMEMBERED = 100  # entries of the history
STATES = ("installed", "passed", "failed")
"""A release that is there; whose checks passed here; whose checks did not."""


def partial(asked: Table) -> Table:
    """What there is of a package: whether a release of it is whole, whether all of it has come, and how many bytes."""
    root, digest = field_root(asked), field_digest(asked)
    release, incoming = package_of(root, digest), os.path.join(root, "incoming", digest)
    whole = [path for path in (release, new_package(root, digest), incoming) if digest_of(path) == digest]
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
        folder, incoming = folder_of(root, digest), os.path.join(root, "incoming", digest)
        whole = digest_of(package_of(root, digest)) == digest
        if not whole:
            _recover(root, digest)
            come = digest_of(incoming)
            if come != digest:
                raise Refusal("not-whole", "%s has SHA-256 %s, not its own; push again" % (incoming, come or "none"))
            if os.path.isdir(folder):  # of a release that was damaged: its bytes alone are replaced
                os.replace(incoming, package_of(root, digest))
            else:
                _make(root, digest, incoming)
        if signature:
            write(os.path.join(folder, SIGNATURE), signature)
        if not read_table(os.path.join(folder, RECORD)) or not whole:
            _record(root, digest, dict(facts, number=next_number(root), state="installed", checks={}, why=""))
        return {"package": package_of(root, digest), "sent": not whole}


def mark(asked: Table) -> Table:
    """Writes into a release's record what its checks gave: ``state``, ``why`` (of one that failed), ``checks``."""
    root, digest, state = field_root(asked), field_digest(asked), field_text(asked, "state")
    if state not in STATES:
        raise Refusal("question", "state is %r; must be one of %s" % (state, ", ".join(STATES)))
    with guarded(root, field_text(asked, "token")):
        record = known_record(root, digest)
        record.update(state=state, why=str(asked.get("why") or ""), checks=field_table(asked, "checks"))
        return _record(root, digest, record)


def activate(asked: Table) -> Table:
    """Makes a release current, by one rename.

    Raises:
        Refusal: there is none, or its checks have not passed here.
    """
    root, digest = field_root(asked), field_digest(asked)
    with guarded(root, field_text(asked, "token")):
        record = known_record(root, digest)
        if record.get("state") != "passed":
            text = "the release %s is %s; only one whose checks passed becomes current" % (digest, record.get("state"))
            raise Refusal("not-passed", text)
        before, history = current_of(root), history_of(root)
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
    """Makes the release current that was before this one, as often as there is one whose bytes are still its own, and
    gives the lock back. ``digest``: the only one that will do, if one is named.

    Raises:
        Refusal: there is none, or it is another one.
    """
    root = field_root(asked)
    with guarded(root, field_text(asked, "token")):
        now, history = current_of(root), history_of(root)
        usable = (i for i in reversed(range(len(history) - 1)) if history[i] != now and is_usable(root, history[i]))
        at = next((i for i in usable if digest_of(package_of(root, history[i])) == history[i]), None)
        if now is None or at is None:
            raise Refusal("no-earlier", "%s has no release before the current one; push one" % root)
        target, verified = history[at], asked.get("digest", history[at])
        if target != verified:
            raise Refusal("not-verified", "%s would go back to %s, and %s was verified" % (root, target, verified))
        _point(root, target)
        write_table(os.path.join(root, HISTORY), {"schema": SCHEMA, "current": history[: at + 1]})
    unlock(asked)
    return {"from": told_of(root, now), "to": told_of(root, target)}


def releases(asked: Table) -> Table:
    """All releases, the newest first, which is current and which was before it, and who works here, if anybody."""
    root = field_root(asked)
    held = holder(root) or {}
    return {
        "releases": [told_of(root, digest) for digest in installed_in(root)],
        "current": current_of(root),
        "before": before_current(root),
        "lock": {name: held.get(name) for name in ("who", "purpose", "since")} if held else None,
    }


def prune(asked: Table) -> Table:
    """Removes releases but the ``keep`` newest whose checks passed, the current one, that before it, and ``digest``.

    So it does with what else lies about: what was being sent, and what a push that was killed has left.
    """
    root, keep, digest = field_root(asked), int(field_number(asked, "keep", 1)), field_digest(asked)
    with guarded(root, field_text(asked, "token")):
        found = installed_in(root)
        passed = [one for one in found if is_usable(root, one)]
        kept = {digest, current_of(root), before_current(root), *passed[:keep]}
        old = [one for one in found if one not in kept]
        left = [n for n in os.listdir(os.path.join(root, "releases")) if n.startswith(NEW)]
        for name in (*old, *left):
            shutil.rmtree(os.path.join(root, "releases", name), ignore_errors=True)  # what stays costs room alone
        shutil.rmtree(os.path.join(root, "incoming"), ignore_errors=True)
        there = installed_in(root)
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
    new = new_package(root, digest)
    os.makedirs(os.path.dirname(new), exist_ok=True)
    os.replace(incoming, new)
    settle(os.path.dirname(new))
    os.rename(os.path.dirname(new), folder_of(root, digest))
    settle(os.path.join(root, "releases"))


def _recover(root: str, digest: str) -> None:
    """What was killed between its two renames goes on from the first."""
    new = new_package(root, digest)
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


def _record(root: str, digest: str, values: Table) -> Table:
    write_table(os.path.join(folder_of(root, digest), RECORD), dict(values, schema=SCHEMA, digest=digest))
    return values
