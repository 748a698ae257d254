"""The last release as what a new package is held against: which package it was, and the gate of what was lost since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from dlx_deploy.config import Gate
from dlx_deploy.nn.data.slices import read_slices
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.words import line, percent
from dlx_deploy.tasks.flips import flips_of
from dlx_deploy.tasks.slices import asked_slices, judge_slices
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Baseline, BySlice, BySliceScore, Comparison

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.statistics.groups import Group
    from dlx_deploy.runtime.statistics.resampled import Bounds
    from dlx_deploy.runtime.statistics.scored import Scored

__all__ = ["BASELINE", "STATISTIC", "Released", "Sliced", "baseline_of", "judge_regression", "sliced"]

BASELINE, STATISTIC = "baseline.json", "statistic.npz"


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """``baseline.json``: which package it is; ``digest``: of its ``package.json``, which covers all of it."""

    name: str
    version: str
    target: str
    digest: str
    schema: int = 1


def baseline_of(
    comparison: Comparison, inputs: Mapping[str, Path], statistics: Mapping[str, Arrays], shipped: Arrays, judged: bool
) -> Baseline | msgspec.UnsetType:
    """What the shipped model's statistic is beside the last release's, if there is one among the ``inputs``; of each of
    the ``slices`` too, if they are among them, and ``judged``: whether these have budgets."""
    if "baseline" not in inputs:
        return msgspec.UNSET
    released = msgspec.json.decode(inputs["baseline"].read_bytes(), type=Released)
    theirs = statistics["released"]
    slices = sliced(comparison, inputs, (theirs, shipped), judged)
    return Baseline(
        name=released.name,
        version=released.version,
        target=released.target,
        digest=released.digest,
        score=comparison.score(theirs),
        evidence=comparison.evidence(theirs, shipped),
        slices=slices.groups or msgspec.UNSET,
        slice_scores=slices.scores or msgspec.UNSET,
        slice_bounds=slices.bounds or msgspec.UNSET,
    )


class Sliced(NamedTuple):
    """What each slice has lost and gained, or its score, and bounds of its drop where these are resampled; nothing: no
    slices."""

    groups: tuple[Group, ...] = ()
    scores: tuple[Scored, ...] = ()
    bounds: tuple[Bounds, ...] = ()


def sliced(comparison: Comparison, inputs: Mapping[str, Path], pair: tuple[Arrays, Arrays], judged: bool) -> Sliced:
    """The ``pair`` of statistics, of a reference and of the shipped model, slice by slice, if ``inputs`` name some.
    Scores have bounds only where slices are ``judged``: a resampled score may take minutes."""
    if "slices" not in inputs:
        return Sliced()
    columns = read_slices(inputs["slices"])
    if isinstance(comparison, BySlice):
        return Sliced(comparison.by_slice(*pair, columns), bounds=comparison.slice_bounds(*pair, columns))
    if isinstance(comparison, BySliceScore):
        scores, bounds = comparison.slice_scores(*pair, columns, judged)
        return Sliced(scores=scores, bounds=bounds)
    return Sliced()


def judge_regression(comparison: Comparison, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
    """Whether what is shipped is worse than the last release, by the test that holds it against its teacher.

    ``gate.max_regression`` takes the place of ``gate.max_drop``, the release that of the teacher; slices have the
    budgets that they have beside the teacher.
    """
    base = accuracy.baseline
    if isinstance(base, msgspec.UnsetType):
        return []
    limit = budgets.max_drop if budgets.max_regression == "max_drop" else budgets.max_regression
    row = accuracy.row(accuracy.shipped)
    rows = replace(row, model=REFERENCE, score=base.score), replace(row, model="shipped", evidence=base.evidence)
    beside = replace(accuracy, rows=rows, shipped="shipped")
    drop_alone = Gate(max_drop=limit, confidence=budgets.confidence, allow_chance=True)
    drop = comparison.judge(drop_alone, beside)[0]
    text = (
        f"{accuracy.shipped} {percent(row.score)} against the last release, {line(base.name)} {line(base.version)} for "
        f"{line(base.target)}, {percent(base.score)}: {drop.text.replace('gate.max_drop', 'gate.max_regression')}"
    )
    if flips := flips_of(rows[1], accuracy.n):
        text += f"; {flips.describe()}"
    results = [replace(drop, gate="regression", metric=f"{accuracy.metric}_regression", text=text)]
    if asked_slices(budgets) and isinstance(comparison, BySlice | BySliceScore):
        kept = {"slices": base.slices, "slice_scores": base.slice_scores, "slice_bounds": base.slice_bounds}
        each = judge_slices(budgets, replace(beside, **kept))
        told = f"{accuracy.shipped} against the last release: {each.text.removeprefix('shipped: ')}"
        metric = f"slice_{accuracy.metric}_regression"
        results.append(replace(each, gate="slice_regression", metric=metric, text=told))
    return results
