"""Builds of a store that made the same bytes: what boards have shown of one holds for the others."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dlx_deploy.pipeline.manifest import BoardProof, Manifest

__all__ = ["builds_of", "packages_of", "with_earlier_proofs"]


def with_earlier_proofs(manifest: Manifest, store: Path) -> Manifest:
    """``manifest`` with what boards have shown of the same bytes when an earlier build of ``store`` had made them."""
    made = packages_of(manifest)
    if not made:
        return manifest
    proofs: dict[str, BoardProof] = {}
    for other in builds_of(store, manifest.target_name).values():
        if other.started <= manifest.started and packages_of(other) == made:
            proofs |= other.proofs
    return msgspec.structs.replace(manifest, proofs={**proofs, **manifest.proofs})


def packages_of(manifest: Manifest) -> list[str]:
    """SHA-256 of the package that the build made, if it did."""
    return [step.outputs["package.dlx"].digest for step in manifest.steps if "package.dlx" in step.outputs]


def builds_of(store: Path, target_name: str) -> dict[Path, Manifest]:
    """The manifests of a target's builds that can be read, the oldest first."""
    builds = {}
    for path in sorted(store.glob("builds/*.json")):  # names: TIME-TARGET-PROCESS
        if path.stem.partition("-")[2].rpartition("-")[0] != target_name:
            continue
        try:
            builds[path] = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError):
            continue
    return builds
