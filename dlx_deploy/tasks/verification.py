"""What is measured of each model on the test split, and what a task makes of it.

``accuracy.json`` keeps of each model a score and its *evidence*: so much that any budget can be judged on it. So a warm
build with another budget runs nothing again, and loads no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.groups import Group, Judged
from dlx_deploy.runtime.statistics.resampled import Bounds
from dlx_deploy.runtime.statistics.scored import Scored

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays

__all__ = [
    "CONTROL",
    "REFERENCE",
    "SCHEMA",
    "STUDENT",
    "Accuracy",
    "Baseline",
    "ByClass",
    "ByClassScore",
    "BySlice",
    "BySliceScore",
    "Comparison",
    "Control",
    "Drop",
    "Evidence",
    "Row",
    "read_accuracy",
]

SCHEMA = 2
REFERENCE = "teacher"
"""The candidate that all are held against."""
STUDENT, CONTROL = "student", "control"
"""The distilled candidate, and the same network trained without a teacher."""

Evidence = dict[str, int | float | tuple[float, ...]]
"""Numbers by name that a task judges a model by, beside its teacher: counts, or bounds of resampled drops."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the test split. ``score``: 0..1, higher is better."""

    model: str
    score: float
    evidence: Evidence
    size_bytes: int
    macs: int
    parameters: int

    def number(self, name: str) -> float:
        """The evidence called ``name``, which is one number."""
        value = self.evidence[name]
        assert not isinstance(value, tuple)
        return value


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the control is judged with: evidence of the student and of the teacher beside it, of it beside the student.

    Bounds are one-sided: of the student's difference one side is in ``gain``, the other in ``loss``.
    """

    gain: Evidence
    loss: Evidence
    lead: Evidence


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A package that was released before, its score, and the evidence of the shipped model beside it; of each slice
    too, where there are some."""

    name: str
    version: str
    target: str
    digest: str
    score: float
    evidence: Evidence
    slices: tuple[Group, ...] | msgspec.UnsetType = msgspec.UNSET
    slice_scores: tuple[Scored, ...] | msgspec.UnsetType = msgspec.UNSET
    slice_bounds: tuple[Bounds, ...] | msgspec.UnsetType = msgspec.UNSET


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``accuracy.json``: deterministic, so it can be shipped.

    ``metric``: what scores are, as metrics are called (``top1``), and ``title``: for people. ``judge``: how the graphs
    were run. ``facts``: what the task knows of the targets, by name. ``classes``: what each class of the shipped model
    has lost and gained, where answers are counted by class, ``class_scores``: the metric of each, where they are not;
    ``slices`` and ``slice_scores``: likewise of each slice that is asked for. ``class_bounds``, ``slice_bounds``: of
    their drops, where these are resampled. ``baseline``: the package that was released before.
    """

    metric: str
    title: str
    judge: str
    n: int
    shipped: str
    rows: tuple[Row, ...]
    facts: dict[str, float] = {}
    control: Control | msgspec.UnsetType = msgspec.UNSET
    classes: tuple[Group, ...] | msgspec.UnsetType = msgspec.UNSET
    class_scores: tuple[Scored, ...] | msgspec.UnsetType = msgspec.UNSET
    slices: tuple[Group, ...] | msgspec.UnsetType = msgspec.UNSET
    slice_scores: tuple[Scored, ...] | msgspec.UnsetType = msgspec.UNSET
    class_bounds: tuple[Bounds, ...] | msgspec.UnsetType = msgspec.UNSET
    slice_bounds: tuple[Bounds, ...] | msgspec.UnsetType = msgspec.UNSET
    baseline: Baseline | msgspec.UnsetType = msgspec.UNSET
    schema: int = SCHEMA

    def row(self, model: str) -> Row:
        """The row of ``model``."""
        return next(r for r in self.rows if r.model == model)

    @property
    def each_slice(self) -> tuple[Judged, ...]:
        """What each slice has lost and gained, or its metric; nothing where none is asked for."""
        for kept in (self.slices, self.slice_scores):
            if not isinstance(kept, msgspec.UnsetType):
                return kept
        return ()


def read_accuracy(outputs: Mapping[str, Path]) -> Accuracy:
    """The ``accuracy.json`` among a verification's outputs."""
    return msgspec.json.decode(outputs["accuracy.json"].read_bytes(), type=Accuracy)


@dataclass(frozen=True)
class Drop:
    """By how much a score is lower than the teacher's, and its one-sided upper bound: fractions (0.01 is one point)."""

    value: float
    upper: float


class Comparison(Protocol):
    """How good answers are, beside the teacher's: what is kept of each model's statistic, and how that is judged.

    The statistic itself, arrays by name with a row for each sample, is of the device's half (``outputs.statistic``), so
    that a package is verified on a device by what its build was.
    """

    @property
    def name(self) -> str:
        """The metric, as in ``teacher_NAME``."""
        ...

    @property
    def title(self) -> str:
        """The metric for people, as a table's header."""
        ...

    @property
    def target(self) -> str:
        """What the device's half calls the targets."""
        ...

    def check(self, budgets: Gate) -> None:
        """Refuses budgets that no verification could be judged by.

        Raises:
            ConfigError: names the key.
        """
        ...

    def score(self, statistic: Arrays) -> float:
        """0..1, higher is better: of a model's statistic."""
        ...

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """What budgets will be judged by: of a model's statistic and its teacher's, on the same samples."""
        ...

    def facts(self, targets: Arrays) -> dict[str, float]:
        """What must be known of a split's targets to judge a score on them; ``targets`` by the name on a device."""
        ...

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """The gates of the shipped model, but that of its latency; the first, ``accuracy``, is its drop."""
        ...

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """The drop of one model, for the table."""
        ...

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """What a test split of ``count`` samples is too small to show; ``metrics``: of the data."""
        ...

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """What validation already says of the gates; ``metrics``: of the teacher, ``validation_NAME`` and its facts."""
        ...

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """What passes the gates and is not right all the same."""
        ...


@runtime_checkable
class ByClass(Protocol):
    """What a ``Comparison`` has more where answers are counted by class."""

    def by_class(self, teacher: Arrays, model: Arrays, labels: Sequence[str]) -> tuple[Group, ...]:
        """What each class, in the order of ``labels``, has lost and gained; nothing where it is not kept."""
        ...

    def class_bounds(self, teacher: Arrays, model: Arrays, count: int) -> tuple[Bounds, ...]:
        """Of the drop of each, where samples come in groups."""
        ...


@runtime_checkable
class ByClassScore(Protocol):
    """What a ``Comparison`` has more where each class has a score of its own and nothing is counted."""

    def class_scores(self, teacher: Arrays, model: Arrays, labels: Sequence[str]) -> tuple[Scored, ...]:
        """The score of each class, in the order of ``labels``, of both models."""
        ...

    def class_bounds(self, teacher: Arrays, model: Arrays, count: int) -> tuple[Bounds, ...]:
        """Of the drop of each."""
        ...


@runtime_checkable
class BySlice(Protocol):
    """What a ``Comparison`` has more where answers are counted by any groups of samples."""

    def by_slice(self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]]) -> tuple[Group, ...]:
        """What each slice, ``COLUMN=VALUE``, has lost and gained; ``columns``: what each sample has in each."""
        ...

    def slice_bounds(self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]]) -> tuple[Bounds, ...]:
        """Of the drop of each, where samples come in groups."""
        ...


@runtime_checkable
class BySliceScore(Protocol):
    """What a ``Comparison`` has more where any samples have a score of their own and nothing is counted."""

    @property
    def lost(self) -> float:
        """So much of a unit a unit costs on which one model alone is right."""
        ...

    def slice_scores(
        self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]], judged: bool
    ) -> tuple[tuple[Scored, ...], tuple[Bounds, ...]]:
        """The score of each slice, ``COLUMN=VALUE``, of both models, and bounds of its drop if slices are ``judged``;
        ``columns``: what each sample has in each."""
        ...
