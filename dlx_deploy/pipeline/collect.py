"""Garbage collection: what no recent build needs leaves the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import msgspec

from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.store import Store

__all__ = ["Collected", "Entry", "collect_garbage"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the store. ``step`` and ``target_name`` are empty where it was never finished."""

    key: str
    step: str
    target_name: str
    started: datetime
    """When the run that made it began; of what was never finished, when it was last changed."""
    size_bytes: int

    @property
    def age_s(self) -> float:
        """How long ago that is."""
        return max((datetime.now(timezone.utc) - self.started).total_seconds(), 0.0)


class Collected(msgspec.Struct, frozen=True):
    """What was removed (or, on a dry run, would be), as keys, and the bytes it held; ``entries`` says what it was."""

    removed: tuple[str, ...]
    kept: int
    freed_bytes: int
    entries: tuple[Entry, ...]
    """The same as ``removed``, the oldest first."""


class _Head(msgspec.Struct, frozen=True):
    """Of a record what a person wants to know of it."""

    step: str = ""
    target_name: str = ""
    started: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


def collect_garbage(store: Store, also_keep: Iterable[str] = (), dry_run: bool = False) -> Collected:
    """Remove every entry that neither the newest build of each target nor ``also_keep`` (keys) refers to.

    Name the keys of the current plan in ``also_keep``, and a killed build still goes on from its checkpoints.
    Entries that another process works on are waited for. The store is read once, however many entries there are.
    """
    live = {entry.key for manifest in latest_manifests(store).values() for entry in manifest.steps} | set(also_keep)
    present = store.contents()
    doomed = {key: folders for key, folders in present.items() if key not in live}
    entries = sorted((_describe(key, folders) for key, folders in doomed.items()), key=lambda e: (e.started, e.key))
    if not dry_run:
        store.remove_all(doomed)
    freed = sum(entry.size_bytes for entry in entries)
    return Collected(tuple(sorted(doomed)), len(present) - len(doomed), freed, tuple(entries))


def _describe(key: str, folders: Sequence[Path]) -> Entry:
    head = _Head()
    for folder in folders:
        try:
            head = msgspec.json.decode((folder / "record.json").read_bytes(), type=_Head)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        break
    return Entry(
        key=key,
        step=head.step,
        target_name=head.target_name,
        started=head.started or datetime.fromtimestamp(_changed(folders), timezone.utc),
        size_bytes=sum(map(_size, folders)),
    )


def _changed(folders: Sequence[Path]) -> float:
    """When the first of ``folders`` was last changed, in seconds since 1970; 0 if it is gone."""
    try:
        return os.stat(folders[0]).st_mtime
    except OSError:
        return 0.0


def _size(folder: Path | str) -> int:
    """The bytes of the files below ``folder``; what vanishes meanwhile counts nothing."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                total += _size(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    except OSError:
        return total
    return total
