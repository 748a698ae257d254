"""What a report holds, as frozen values: the same whether a build has just ended or a package came from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.graph.quantization.kit.decisions import Decisions
from dlx_deploy.graph.quantization.trials import Trials
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import BoardProof
from dlx_deploy.report.studies import StudyTrials
from dlx_deploy.stages.support.results import Timing

__all__ = [
    "Candidate",
    "DataSeen",
    "LayerSeen",
    "Layers",
    "Models",
    "Origin",
    "Outputs",
    "Quantization",
    "Searched",
    "StepSeen",
    "TrialPoint",
    "Verdicts",
    "overall",
]

Outputs = Mapping[str, Mapping[str, Path]]
"""Step → output → where it lies."""
Outcome = Literal["pass", "fail", "undecided", "pending", "unfinished"]


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """How a build came out: every budget that was judged. ``status`` is the manifest's; ``error``: why it failed."""

    outcome: Outcome
    status: str
    error: str
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    boards: dict[str, BoardProof] = {}
    """What boards have shown of the package since, by what they are called."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One model, in the order in which they were made. ``score``: 0..1; ``drop`` and its one-sided bound: fractions.

    ``None``: the teacher has no drop; nobody knows the latency.
    """

    model: str
    chosen: bool
    score: float
    drop: float | None
    drop_upper: float | None
    size_bytes: int
    parameters: int
    macs: int
    latency: Timing | None = None

    @property
    def p50_ms(self) -> float | None:
        """Measured or estimated."""
        return self.latency.p50_ms if self.latency else None

    @property
    def is_estimate(self) -> bool:
        """Whether the latency is an estimate, which has a range and no percentiles."""
        return self.latency is not None and self.latency.low_ms is not None


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """All that were judged. ``title``: what scores are; ``max_drop``: the budget, ``None`` where it is not known."""

    title: str
    samples: int
    judge: str
    confidence: float
    max_drop: float | None
    latency_kind: str
    latency_where: str
    candidates: tuple[Candidate, ...]
    slices: tuple[tuple[str, ...], ...] = ()
    """As ``report.slices.slice_table`` has it, the header first; nothing without slices."""
    distillation: str = ""
    """What it gave, as a sentence; empty without a control."""


class DataSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the models learned and were judged on. ``findings``: what is wrong with the data, metric → how many."""

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, int]
    findings: dict[str, int]


class LayerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the shipped graph. ``sqnr_db``, ``agreement``: of the answers with it alone in INT8."""

    name: str
    precision: str
    sqnr_db: float | None = None
    agreement: float | None = None
    restored: bool = False


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """Every layer that has a precision of its own. ``samples``: by how many inputs sensitivity was told; 0: it was not.

    ``precision``, ``reason``: what compile chose for the whole, and why.
    """

    precision: str
    reason: str
    samples: int
    layers: tuple[LayerSeen, ...]


class TrialPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that was tried with layers restored, on the validation split, and how fast it is on the target.

    ``trained``: its weights and scales were learned under the rounding.
    """

    restored: int
    int8_layers: int
    score: float
    drop_upper: float | None
    verdict: str
    latency_ms: float | None
    latency: str
    chosen: bool
    trained: bool = False


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """What each step of it gave (``decisions``), and what was tried to keep to its budget."""

    decisions: Decisions | None
    trials: Trials | None
    points: tuple[TrialPoint, ...]


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """Which trial of a search the configuration is, and what the others came to.

    ``trials``: ``None`` where the store does not have them. ``changed``: keys that differ from the trial's now, with
    both values, as a sentence each.
    """

    study: str
    trial: int
    trials: StudyTrials | None
    changed: tuple[str, ...] = ()


class StepSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the pipeline and the run that made its outputs. ``digests``: output → SHA-256.

    ``curves``: metric → its value after each epoch; empty where nothing was trained, or an older dlx-deploy did it.
    """

    step: str
    status: str
    why: str
    key: str
    started: str
    seconds: float
    peak_memory_mib: float | None
    size_bytes: int
    metrics: dict[str, float]
    digests: dict[str, str]
    inputs: dict[str, str]
    tools: dict[str, str]
    curves: dict[str, tuple[float, ...]] = {}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where it comes from, for whoever signs: label → value; and the whole configuration, dotted key → value."""

    facts: dict[str, str]
    tools: dict[str, str]
    config: dict[str, str]


def overall(status: str, gates: tuple[GateResult, ...]) -> Outcome:
    """The verdict on a build: the worst of its gates', or ``unfinished`` where it never came to its end."""
    if status in ("failed", "interrupted", "killed", "running"):
        return "unfinished"
    said = {gate.verdict for gate in gates}
    order: tuple[Outcome, ...] = ("fail", "undecided", "pending")
    return next((verdict for verdict in order if verdict in said), "pass")
