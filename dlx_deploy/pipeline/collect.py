"""Garbage collection: what no recent build needs leaves the store."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.store import Store

__all__ = ["Collected", "collect_garbage"]


class Collected(msgspec.Struct, frozen=True):
    """What was removed (or, on a dry run, would be), as keys, and the bytes it held."""

    removed: tuple[str, ...]
    kept: int
    freed_bytes: int


def collect_garbage(store: Store, also_keep: Iterable[str] = (), dry_run: bool = False) -> Collected:
    """Remove every entry that neither the newest build of each target nor ``also_keep`` (keys) refers to.

    Name the keys of the current plan in ``also_keep``, and a killed build still goes on from its checkpoints.
    Entries that another process works on are waited for.
    """
    live = {entry.key for manifest in latest_manifests(store).values() for entry in manifest.steps} | set(also_keep)
    present = store.keys()
    doomed = sorted(present - live)
    freed = sum(store.size_of(key) if dry_run else store.remove(key) for key in doomed)
    return Collected(tuple(doomed), len(present & live), freed)
