"""The last release as what a new package is held against: which package it was, and the gate of what was lost since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.words import line, percent
from dlx_deploy.tasks.flips import flips_of
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Baseline, Comparison

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays

__all__ = ["BASELINE", "STATISTIC", "Released", "baseline_of", "judge_regression"]

BASELINE, STATISTIC = "baseline.json", "statistic.npz"


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """``baseline.json``: which package it is; ``digest``: of its ``package.json``, which covers all of it."""

    name: str
    version: str
    target: str
    digest: str
    schema: int = 1


def baseline_of(
    comparison: Comparison, inputs: Mapping[str, Path], statistics: Mapping[str, Arrays], shipped: Arrays
) -> Baseline | msgspec.UnsetType:
    """What the shipped model's statistic is beside the last release's, if there is one among the ``inputs``."""
    if "baseline" not in inputs:
        return msgspec.UNSET
    released = msgspec.json.decode(inputs["baseline"].read_bytes(), type=Released)
    theirs = statistics["released"]
    return Baseline(
        name=released.name,
        version=released.version,
        target=released.target,
        digest=released.digest,
        score=comparison.score(theirs),
        evidence=comparison.evidence(theirs, shipped),
    )


def judge_regression(comparison: Comparison, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
    """Whether what is shipped is worse than the last release, by the test that holds it against its teacher.

    ``gate.max_regression`` takes the place of ``gate.max_drop``, the release that of the teacher.
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
    return [replace(drop, gate="regression", metric=f"{accuracy.metric}_regression", text=text)]
