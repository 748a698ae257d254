"""What a board has shown of a package, taken into the manifest beside it: checked first, then written whole."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.locks import locked
from dlx_deploy.pipeline.manifest import BoardProof, Manifest, ProvenBudget, ProvenLatency
from dlx_deploy.report.repeated import builds_of, packages_of
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.files import read_file, reason, write_atomically
from dlx_deploy.runtime.machine import MACHINE_NAME
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust

__all__ = ["AttachedView", "attach", "lines_of_proofs", "proofs_beside", "settled_gates"]

_log = logging.getLogger(__name__)
SCHEMA = 1
MAX_BYTES = 16 * 2**20
FLOORS = ("throughput",)
"""Metrics of which a budget is the least that there must be; of all others it is the most."""
METRICS = {
    "throughput": "min_throughput",
    "peak_memory_mib": "max_memory_mib",
    "package_mib": "max_size_mib",
    "energy_mj": "max_energy_mj",
    "cold_start_ms": "max_cold_start_ms",
}


class _Proof(msgspec.Struct, frozen=True):
    schema: int
    taken: str
    arch: str
    backend: str
    machine: dict[str, object]
    accuracy: Literal["pass", "fail", "undecided"]
    own_budgets: bool
    why: str
    budgets: tuple[ProvenBudget, ...]
    state: dict[str, object] | None = None
    latency: ProvenLatency | None = None


class _Of(msgspec.Struct, frozen=True):
    digest: str


class _File(msgspec.Struct, frozen=True):
    schema: int
    package: _Of
    proof: _Proof
    parity: dict[str, object] | None = None


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

    opened, seen = open_package(package, trust), _read(proof)
    path, manifest = _manifest_of(package)
    if seen.package.digest != opened.digest:
        raise ConfigError(
            f"{proof} is of the package {line(seen.package.digest[:12])}, and {package} is {opened.digest[:12]}; rule: "
            "of the same; run verify --json with this package on the board"
        )
    limits = {f"latency_p{p}_ms": limit for p, limit in opened.latency_budgets.items()}
    _check(seen.proof, _limits(opened.device_budgets) | limits, manifest, str(proof))
    board = " ".join(filter(None, (_said(seen.proof, MACHINE_NAME), _said(seen.proof, "power_mode"))))
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
    with locked(path, lambda: _log.warning("waiting for another process that attaches a proof to %s", path)):
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
        raise StoreError(f"{where}: {e.strerror}; the proof is not attached") from e


def proofs_beside(package: Path) -> Mapping[str, BoardProof]:
    """The proofs in the manifest beside ``package``; none where there is no manifest of this very package."""
    try:
        return _manifest_of(package)[1].proofs
    except ConfigError:
        return {}


def lines_of_proofs(proofs: Mapping[str, BoardProof]) -> Sequence[str]:
    """A line for each verdict of each board."""
    told = []
    for board, proof in proofs.items():
        told.append(line(f"on {board}, {proof.taken}, {proof.backend}: accuracy {proof.accuracy}"))
        told += [
            line(f"  {text}") for text in (_parity_words(proof.parity or {}), _state_words(proof.state or {})) if text
        ]
        told += [line(f"  {one.metric}: {one.verdict}. {one.text}") for one in proof.budgets]
    return told


def _parity_words(parity: Mapping[str, object]) -> str:
    """How the answers there compare with the builder's."""
    if not parity:
        return ""
    told = f"parity with the builder: {parity.get('verdict')}, {parity.get('samples')} samples"
    others = parity.get("differing")
    return f"{told}, SQNR {parity.get('sqnr_db')} dB" + ("" if others is None else f", {others} decided otherwise")


def _state_words(state: Mapping[str, object]) -> str:
    """What the board met while it was timed, as far as it says."""
    told = []
    slowest, fastest = state.get("slowest_mhz"), state.get("fastest_mhz")
    if isinstance(slowest, int | float) and isinstance(fastest, int | float):
        told.append(f"clocked {slowest:.0f} to {fastest:.0f} MHz")
    if isinstance(hottest := state.get("hottest_c"), int | float):
        told.append(f"at most {hottest:.0f} °C")
    noise = state.get("noise")
    return ", ".join([*told, *(map(str, noise) if isinstance(noise, list) else ())])


def settled_gates(manifest: Manifest) -> tuple[GateResult, ...]:
    """The gates of a build, in place of each that was pending what boards have shown of it."""
    shown = {(board, one.metric): one for board, proof in manifest.proofs.items() for one in proof.budgets}
    gates: list[GateResult] = []
    unsure = _unsure(manifest)
    for gate in manifest.gates:
        by_boards = [
            _gate_of(gate.gate, board + unsure, one) for (board, metric), one in shown.items() if metric == gate.metric
        ]
        gates += by_boards if gate.verdict == "pending" and by_boards else [gate]
    return (
        *gates,
        *(_wrong_answers(board, proof) for board, proof in manifest.proofs.items() if proof.accuracy != "pass"),
    )


def _unsure(manifest: Manifest) -> str:
    """What is said of boards of a target with a GPU whose profile does not say what they call themselves."""
    told = manifest.target if isinstance(manifest.target, dict) else {}
    if told.get("kind", "cpu") == "cpu" or told.get("device_tree_model"):
        return ""
    return f" (not checked to be {manifest.target_name}: its profile has no device_tree_model)"


def _wrong_answers(board: str, proof: BoardProof) -> GateResult:
    """A board on which the package's answers did not pass."""
    text = line(f"on {board}: the package's answers are judged {proof.accuracy}, so nothing was timed there")
    return GateResult(
        gate="board", metric="accuracy", value=None, bound=None, limit=0.0, verdict=proof.accuracy, text=text
    )


def _gate_of(gate: str, board: str, one: ProvenBudget) -> GateResult:
    return GateResult(
        gate=gate,
        metric=one.metric,
        value=one.value,
        bound=one.bound,
        limit=one.limit,
        verdict=one.verdict,
        text=line(f"on {board}: {one.text}"),
    )


def _read(path: Path) -> _File:
    try:
        data = read_file(path, MAX_BYTES)
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: the proof cannot be read ({reason(e)})") from e
    try:
        return msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        why = line(str(e))
        write = "python X.dlx verify --data DIR --json > proof.json"
        raise ConfigError(f"{path} is no whole proof ({why}); write it on the board: {write}") from e


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


def _check(proof: _Proof, limits: Mapping[str, float], manifest: Manifest, origin: str) -> None:
    """Refuses what contradicts itself, the package or its target."""
    if proof.schema != SCHEMA:
        raise ConfigError(
            f"{origin}: the proof has schema {proof.schema}; rule: {SCHEMA}; use the package's own runtime"
        )
    target = manifest.target
    arch = target.get("arch") if isinstance(target, dict) else None
    if proof.arch != arch:
        raise ConfigError(f"{origin} is of a machine with {line(proof.arch)}, and {manifest.target_name} is {arch}")
    _check_board(proof, target, manifest.target_name, origin)
    if not proof.own_budgets:
        raise ConfigError(f"{origin} was judged by other budgets than the package's own; run verify without them")
    if proof.why:
        raise ConfigError(f"{origin} holds no verdict on budgets: {line(proof.why)}")
    _check_latency(proof.latency, origin)
    found = {one.metric: one for one in proof.budgets}
    if len(found) != len(proof.budgets):
        raise ConfigError(f"{origin} judges a budget twice; rule: once; write the proof again")
    if found and proof.accuracy != "pass":
        raise ConfigError(
            f"{origin} judges budgets of a package whose answers are said to {proof.accuracy}, which contradict each "
            "other: nothing is timed then"
        )
    wanted = limits if proof.accuracy == "pass" else {}
    if missing := wanted.keys() - found.keys():
        raise ConfigError(
            f"{origin} says nothing of {', '.join(sorted(missing))}; rule: of every budget of the package"
        )
    for metric, one in found.items():
        if one.limit != limits.get(metric):
            raise ConfigError(
                f"{origin}: {line(metric)} is held against {one.limit:g}; the budget is {limits.get(metric)}"
            )
        if not _fits(one):
            raise ConfigError(
                f"{origin}: {line(metric)} is said to {one.verdict} with a bound of {one.bound} and a budget of "
                f"{one.limit:g}, which contradict each other"
            )


def _check_latency(latency: ProvenLatency | None, origin: str) -> None:
    """Refuses timings that are none."""
    if latency is None:
        return
    times = (latency.p50_ms, latency.p90_ms, latency.p99_ms)
    if not all(math.isfinite(ms) and ms > 0 for ms in times):
        raise ConfigError(f"{origin} has latencies of {times} ms; rule: finite and over 0; write the proof again")
    if latency.histogram is not None and not latency.histogram.is_of(latency.n):
        raise ConfigError(f"{origin}: its histogram is not one of {latency.n} timings; write the proof again")


def _check_board(proof: _Proof, target: object, name: str, origin: str) -> None:
    """Refuses another board than the target, as far as the profile says which it is, and a CPU in place of a GPU."""
    told = target if isinstance(target, dict) else {}
    model = str(told.get("device_tree_model") or "")
    if model not in _said(proof, "board"):
        seen = _said(proof, MACHINE_NAME) or "a machine without a name"
        raise ConfigError(
            f"{origin} is of {seen}, and {name} is {model}; run verify on that board, or build for a target of your "
            "own whose device_tree_model is part of what this one calls itself"
        )
    if told.get("kind") != "cpu" and proof.backend.endswith("-cpu") and proof.budgets:
        raise ConfigError(f"{origin}: {line(proof.backend)} is no GPU, and {name} has one; run verify on its GPU")


def _fits(one: ProvenBudget) -> bool:
    """Whether a verdict is what the bound says."""
    if one.bound is None:
        return one.verdict == "undecided"
    met = one.bound >= one.limit if one.metric in FLOORS else one.bound <= one.limit
    return {"pass": met, "fail": not met, "undecided": True}[one.verdict]


def _limits(budgets: DeviceBudgets) -> dict[str, float]:
    given = budgets.to_dict()
    return {metric: given[name] for metric, name in METRICS.items() if name in given}


def _said(proof: _Proof, key: str) -> str:
    value = proof.machine.get(key)
    return line(str(value))[:200] if value else ""


def _same_in_store(store: Path, manifest: Manifest) -> Sequence[Path]:
    """The same build's manifest in the store, so that ``status`` shows the proof too."""
    builds = builds_of(store, manifest.target_name)
    return [path for path, other in builds.items() if other.started == manifest.started]
