"""What lies in a store: the newest builds, and what garbage collection takes away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.collect import Collected
from dlx_deploy.pipeline.manifest import Manifest, latest_manifests
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.proven import lines_of_proofs
from dlx_deploy.report.repeated import with_earlier_proofs
from dlx_deploy.report.table import format_age, format_bytes, format_mib, format_seconds, format_table
from dlx_deploy.runtime.words import line

__all__ = ["CollectedView", "StatusView", "view_status"]

_LISTED = 40
"""So many removed entries are listed for people; ``--json`` has all."""


class StatusView(msgspec.Struct, frozen=True):
    """Target name → the manifest of its newest build."""

    builds: Mapping[str, Manifest]

    @property
    def data(self) -> Mapping[str, Manifest]:
        """The manifests."""
        return self.builds

    @property
    def text(self) -> str:
        """A table for each target."""
        return "\n\n".join(map(_draw_manifest, self.builds.values()))


class CollectedView(msgspec.Struct, frozen=True):
    """What garbage collection removed, or on a dry run would."""

    collected: Collected
    dry_run: bool

    @property
    def data(self) -> Collected:
        """Keys, bytes and entries."""
        return self.collected

    @property
    def text(self) -> str:
        """A table with the oldest first, and a line that adds it up."""
        gone, verb = self.collected, "would free" if self.dry_run else "freed"
        total = f"{verb} {format_bytes(gone.freed_bytes)}: {len(gone.removed)} entries; {gone.kept} are kept"
        if not gone.removed:
            return total
        rows = [
            [
                e.step or "(unfinished)",
                e.target_name or "-",
                format_age(e.age_s),
                format_bytes(e.size_bytes),
                e.key[:12],
            ]
            for e in gone.entries[:_LISTED]
        ]
        more = len(gone.removed) - len(rows)
        table = format_table(["stage", "first built for", "age", "size", "key"], rows, right=(2, 3))
        return "\n".join([table, *([f"… and {more} more; --json lists all"] if more else []), total])


def view_status(store: Path) -> StatusView:
    """The newest build of each target.

    Raises:
        ConfigError: nothing was built in this store.
    """
    manifests = latest_manifests(Store(store))
    if not manifests:
        raise ConfigError(f"no build in {store}; start one with: dlx-deploy build --target jetson")
    return StatusView({name: with_earlier_proofs(one, store) for name, one in manifests.items()})


def _draw_manifest(manifest: Manifest) -> str:
    rows = [
        [
            e.step,
            e.status,
            format_seconds(e.seconds),
            format_mib(e.peak_memory_mib),
            format_bytes(sum(o.size_bytes for o in e.outputs.values())),
            e.why,
        ]
        for e in manifest.steps
    ]
    lines = [
        f"{manifest.target_name}: {manifest.status}, started {manifest.started}, {format_seconds(manifest.seconds)}",
        format_table(["stage", "", "took", "memory", "size", "why"], rows, right=(2, 3, 4)),
        *(f"gate {gate.gate}: {gate.verdict}. {gate.text}" for gate in manifest.gates),
    ]
    lines += lines_of_proofs(manifest.proofs)
    lines += [line(f"note {note}") for note in manifest.notes]
    if manifest.status == "interrupted":  # somebody's wish, not an error
        return "\n".join([*lines, "interrupted; finished stages are kept: build again to go on"])
    return "\n".join([*lines, line(f"error: {manifest.error}")] if manifest.error else lines)
