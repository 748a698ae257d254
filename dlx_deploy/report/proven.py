"""What boards have shown of a package, in words and as the gates that it settles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import BoardProof, Manifest, ProvenBudget
from dlx_deploy.runtime.words import line

__all__ = ["lines_of_proofs", "settled_gates"]


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
    """What of boards was not checked: which they are, where the profile of a target with a GPU does not say what they
    call themselves; else their memory, of which boards of one name have more or less."""
    told = manifest.target if isinstance(manifest.target, dict) else {}
    if told.get("device_tree_model"):
        gib = told.get("memory_gib")
        return f" (its memory was not checked: {manifest.target_name} has {gib:g} GiB)" if gib else ""
    if told.get("kind", "cpu") == "cpu":
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
