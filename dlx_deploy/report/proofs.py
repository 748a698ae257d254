"""What a board has shown of a package, taken into the manifest beside it: checked first, then written whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.locks import locked
from dlx_deploy.pipeline.manifest import BoardProof, Manifest
from dlx_deploy.report.proof_files import check_proof, limits_of, read_proof, said_of
from dlx_deploy.report.proven import lines_of_proofs
from dlx_deploy.report.repeated import builds_of, packages_of
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.machine import MACHINE_NAME
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust

__all__ = ["AttachedView", "attach", "proofs_beside"]

_log = logging.getLogger(__name__)


class AttachedView(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that was attached, and where."""

    board: str
    manifest: str
    proof: BoardProof

    @property
    def data(self) -> AttachedView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The board and its verdicts."""
        return "\n".join([f"attached to {self.manifest}:", *lines_of_proofs({self.board: self.proof})])


def attach(package: Path, proof: Path, store: Path, trust: Trust | None = None) -> AttachedView:
    """Join ``proof``, the JSON of ``verify`` on a board, to the manifest beside ``package`` and to that of the store.

    The package's own bytes stay as they are: their digest is what proofs are of. Another proof of the same board in the
    same power mode is replaced.

    Raises:
        ConfigError: it is no such proof, of another package, of another kind of machine, in contradiction to itself or
            without a verdict that is pending; or there is no manifest of this package beside it.
        PackageError: ``package`` is none.
    """
    from dlx_deploy.runtime.package.contents import open_package

    opened, seen = open_package(package, trust), read_proof(proof)
    path, manifest = _manifest_of(package)
    if seen.package.digest != opened.digest:
        raise ConfigError(
            f"{proof} is of the package {line(seen.package.digest[:12])}, and {package} is {opened.digest[:12]}; rule: "
            "of the same; run verify --json with this package on the board"
        )
    limits = {f"latency_p{p}_ms": limit for p, limit in opened.latency_budgets.items()}
    check_proof(seen.proof, limits_of(opened.device_budgets) | limits, manifest, str(proof))
    board = " ".join(filter(None, (said_of(seen.proof, MACHINE_NAME), said_of(seen.proof, "power_mode"))))
    taken = BoardProof(
        taken=line(seen.proof.taken),
        backend=line(seen.proof.backend),
        machine=seen.proof.machine,
        accuracy=seen.proof.accuracy,
        budgets=seen.proof.budgets,
        parity=seen.parity,
        state=seen.proof.state,
        latency=seen.proof.latency,
    )
    waiting = f"waiting for another process that attaches a proof to {path}"
    with locked(path, lambda: _log.warning("%s", waiting), _unattached):
        if packages_of(_manifest_of(package)[1]) != packages_of(manifest):
            raise ConfigError(f"{package} was built again meanwhile; run verify with the new package on the board")
        for where in (*_same_in_store(store, manifest), path):  # the last one is what the lock is of
            _join(where, board, taken)
    return AttachedView(board=board, manifest=str(path), proof=taken)


def _join(where: Path, board: str, taken: BoardProof) -> None:
    """The manifest at ``where`` with one board's proof, as it is by now."""
    old = msgspec.json.decode(where.read_bytes(), type=Manifest)
    new = msgspec.structs.replace(old, proofs={**old.proofs, board: taken})
    try:
        write_atomically(where, canonical_json(new), 0o644)
    except OSError as e:
        raise _unattached(e, where) from e


def _unattached(e: OSError, where: Path) -> StoreError:
    return StoreError(
        f"{where}: {e.strerror}; the proof is not attached: make the file and its folder writable, and do it again"
    )


def proofs_beside(package: Path) -> Mapping[str, BoardProof]:
    """The proofs in the manifest beside ``package``; none where there is no manifest of this very package."""
    try:
        return _manifest_of(package)[1].proofs
    except ConfigError:
        return {}


def _manifest_of(package: Path) -> tuple[Path, Manifest]:
    path = package.with_suffix(".manifest.json")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        file = hashlib.sha256(package.read_bytes()).hexdigest()
    except (OSError, msgspec.MsgspecError) as e:
        raise ConfigError(
            f"{path}: no manifest of a build is there ({line(str(e))}); a proof is attached to the one that the build "
            "wrote beside the package"
        ) from e
    if packages_of(manifest) != [file]:
        raise ConfigError(f"{path} is the manifest of another package than {package}; build again, or move it back")
    return path, manifest


def _same_in_store(store: Path, manifest: Manifest) -> Sequence[Path]:
    """The same build's manifest in the store, so that ``status`` shows the proof too."""
    builds = builds_of(store, manifest.target_name)
    return [path for path, other in builds.items() if other.started == manifest.started]
