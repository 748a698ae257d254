"""Samples that come in groups: which tasks draw whole ones, what is kept of them, and what a split of few says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.statistics.resampled import LEVELS, Bounds, Drawn, units_that_agree
from dlx_deploy.runtime.words import GROUPS
from dlx_deploy.tasks.task import Task
from dlx_deploy.tasks.verification import Evidence, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.data.dataset import Dataset

__all__ = [
    "FLIPS",
    "GROUP",
    "bounds_in",
    "counted_groups",
    "drawn_in",
    "draws_groups",
    "flip_evidence",
    "group_notes",
    "grouped_targets",
    "paired_evidence",
    "refuse_sure",
]

GROUP = "group"
"""As ``runtime.tasks.grouped`` calls the column."""
_DROP, _OWN, FLIPS = "drop_", "", "flip_"
"""Before ``lowers`` and ``uppers``: whose bounds they are."""


def draws_groups(task: Task) -> bool:
    """Whether both halves of ``task`` draw whole groups."""
    return bool(getattr(task.answers, "draws_groups", False))


def grouped_targets(task: Task, data: Dataset, split: str) -> Arrays:
    """The group of each sample of ``split``, where they come in some and ``task`` draws them; for the targets."""
    groups = data.groups(split) if draws_groups(task) else None
    return {} if groups is None else {GROUP: groups}


def counted_groups(statistic: Arrays) -> Evidence:
    """How many groups there are, if any."""
    if GROUP not in statistic:
        return {}
    from dlx_deploy.runtime.statistics.clustered import count_groups

    return {GROUPS: count_groups(statistic[GROUP])}


def paired_evidence(teacher: Arrays, model: Arrays) -> Evidence:
    """What right and wrong answers are judged by where samples come in groups; nothing where they do not. ``right``,
    bool[n], and maybe ``answer``, int32[n], of both."""
    if GROUP not in model:
        return {}
    from dlx_deploy.runtime.statistics.clustered import grouped_drops, grouped_share

    groups = model[GROUP]
    found = counted_groups(model) | _kept(_DROP, grouped_drops(teacher["right"], model["right"], groups).bounds)
    found |= _kept(_OWN, grouped_share(model["right"], groups)[1])
    if "answer" in model:
        found |= flip_evidence(teacher["answer"] != model["answer"], groups)
    return found


def flip_evidence(flipped: NDArray[np.bool_], groups: NDArray[np.int64]) -> Evidence:
    """Bounds of the share of samples that are ``flipped``, bool[n], by their ``groups``, int64[n]."""
    from dlx_deploy.runtime.statistics.clustered import grouped_share

    return _kept(FLIPS, grouped_share(flipped, groups)[1])


def _kept(whose: str, bounds: Bounds) -> Evidence:
    return {f"{whose}lowers": bounds.lowers, f"{whose}uppers": bounds.uppers}


def bounds_in(row: Row, whose: str) -> Bounds | None:
    """Those that are kept of a model, if there are some."""
    low, high = row.evidence.get(f"{whose}lowers"), row.evidence.get(f"{whose}uppers")
    return Bounds(low, high) if isinstance(low, tuple) and isinstance(high, tuple) else None


def drawn_in(row: Row, samples: int) -> Drawn:
    """How many units were drawn, and what they are."""
    return Drawn(int(row.number(GROUPS)), GROUPS) if GROUPS in row.evidence else Drawn(samples)


def refuse_sure(budgets: Gate) -> None:
    """Nothing, if resampling groups tells bounds as sure as asked.

    Raises:
        ConfigError: it does not.
    """
    if budgets.confidence > LEVELS[-1]:
        raise ConfigError(
            f"gate.confidence is {budgets.confidence:g}; samples that come in groups are judged by resampling these, "
            f"which tells no bound above {LEVELS[-1]:g}: set that or less"
        )


def group_notes(task: Task, budgets: Gate, samples: int, groups: int) -> list[str]:
    """What it means for the gate that the test ``samples`` come in ``groups``."""
    seen = f"the {samples} test samples are of {groups} groups, and those of one err alike"
    if not draws_groups(task):
        return [
            f"{seen}; the gate's bounds take each for one of its own, so a verdict is surer than it should be: give "
            "samples of more groups, or few of each"
        ]
    least = units_that_agree(budgets.max_drop, budgets.confidence, 1.0)
    if least is None or groups >= least:
        return []
    rule = f"gate.max_drop {budgets.max_drop:g} at gate.confidence {budgets.confidence:g}"
    return [
        f"{seen}; the gate draws whole groups, and these are too few to decide: {rule} takes about {least} groups if "
        f"every answer is the teacher's, {least - groups} more; add samples of other groups, or raise the budget"
    ]
