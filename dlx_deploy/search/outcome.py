"""What a trial came to, and how far it is from the budgets: values, kept in the study's journal."""

from __future__ import annotations

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.report.studies import TrialState
from dlx_deploy.report.table import format_bytes, format_ms
from dlx_deploy.runtime.words import percent, points

__all__ = ["Figures", "Miss", "Outcome", "misses"]

MIB = 1024**2
POINT = 0.01


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the model that would be shipped. ``score``, ``teacher_score`` and ``drop`` (0..1) are of the validation split.

    ``drop_upper``: what the drop is at most, at ``gate.confidence``. ``latency_ms``: p50 at batch 1, or an estimate;
    ``latency_p90_ms``, ``latency_p99_ms``: measured. ``energy_mj``: of an inference, where a search chooses by it.
    """

    metric: str
    title: str
    samples: int
    score: float
    teacher_score: float
    drop: float
    drop_upper: float
    latency_ms: float
    latency_p90_ms: float | None
    latency_p99_ms: float | None = None
    latency_kind: str
    latency_where: str
    energy_mj: float | None = None
    size_bytes: int
    parameters: int
    macs: int

    @property
    def objectives(self) -> tuple[float, ...]:
        """What is the better the smaller; energy is among it where it was measured."""
        energy = () if self.energy_mj is None else (self.energy_mj,)
        return (-self.score, self.latency_ms, float(self.size_bytes), *energy)


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that is missed; ``excess``: by how much, relative to it (accuracy: to a point or the budget)."""

    budget: str
    excess: float
    text: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """``stopped``: before its end, as it would miss a budget. ``reason``: why it stopped or failed.

    ``ran`` and ``cached``: how many of its steps were run, and found.
    """

    state: TrialState
    reason: str = ""
    figures: Figures | None = None
    misses: tuple[Miss, ...] = ()
    ran: int = 0
    cached: int = 0
    seconds: float = 0.0

    @property
    def meets(self) -> bool:
        """Whether it came to its end and misses no budget."""
        return self.state == "complete" and not self.misses

    @property
    def excess(self) -> float:
        """How far it is from all budgets together."""
        return sum(miss.excess for miss in self.misses)


def misses(figures: Figures, config: Config) -> tuple[Miss, ...]:
    """The budgets of ``config`` that ``figures`` miss, by their values: bounds are the gate's, on the test split."""
    found = score_misses(figures.score, figures.teacher_score, figures.title, config, 0.0)
    gate, limit_mib = config.gate, config.search.max_size_mib
    measured = {90: figures.latency_p90_ms, 99: figures.latency_p99_ms}
    for percentile, limit_ms in gate.latency_budgets.items():
        latency = measured.get(percentile) or figures.latency_ms
        if latency > limit_ms:
            found.append(latency_miss(latency, figures.latency_kind, percentile, limit_ms))
    if limit_mib and figures.size_bytes > limit_mib * MIB:
        found.append(size_miss(figures.size_bytes, limit_mib))
    return tuple(found)


def score_misses(score: float, teacher: float, title: str, config: Config, slack: float) -> list[Miss]:
    """The budgets of accuracy that ``score`` misses by more than ``slack``, on the validation split."""
    found, gate = [], config.gate
    drop = teacher - score
    if drop > gate.max_drop + slack:
        text = (
            f"{title} is {points(drop)} under the teacher's on validation, gate.max_drop allows {points(gate.max_drop)}"
        )
        excess = (drop - gate.max_drop) / max(gate.max_drop, POINT)
        found.append(Miss(budget="gate.max_drop", excess=excess, text=text))
    if score < gate.min_accuracy - slack:
        text = f"{title} is {percent(score)} on validation, gate.min_accuracy asks for {percent(gate.min_accuracy)}"
        excess = (gate.min_accuracy - score) / POINT
        found.append(Miss(budget="gate.min_accuracy", excess=excess, text=text))
    return found


def latency_miss(latency_ms: float, kind: str, percentile: int, limit_ms: float) -> Miss:
    """A latency over its budget."""
    budget = f"gate.max_latency_p{percentile}_ms"
    text = f"latency is {format_ms(latency_ms)} ({kind}), {budget} allows {format_ms(limit_ms)}"
    return Miss(budget=budget, excess=latency_ms / limit_ms - 1, text=text)


def size_miss(size_bytes: float, limit_mib: float) -> Miss:
    """A size over its budget."""
    text = f"the model has {format_bytes(size_bytes)}, search.max_size_mib allows {format_bytes(limit_mib * MIB)}"
    return Miss(budget="search.max_size_mib", excess=size_bytes / (limit_mib * MIB) - 1, text=text)
