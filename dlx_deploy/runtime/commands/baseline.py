"""A package against the one that was released before it: both answer the same samples, on this machine."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from typing import Dict, List, Optional, Tuple

from ..backends.table import BackendOptions
from ..errors import InputError, PackageError, RuntimeFault, first_fault
from ..files import PathLike
from ..package.contents import Package, open_package
from ..package.contract import contract_difference, contract_of
from ..package.trust import Trust
from ..predictor import Predictor
from ..records import record, replace
from ..tasks.arrays import Arrays, block_rows, count_of, joined, rows_of
from ..tasks.slice_verdicts import SlicesJudged
from ..tasks.task import Budgets, Judgement, Outputs
from ..words import line
from .parity import BLOCK

__all__ = ["Regression", "baseline_predictor", "baseline_statistic", "judge_regression"]

REFERENCE = "reference"
"""The field of a judgement that says what its teacher is called."""


@record
class Regression:
    """The judgement on a package beside ``baseline``, the package that takes the teacher's place in it; and on each of
    its slices, if there are some."""

    baseline: Package
    result: Judgement
    slices: Optional[SlicesJudged] = None

    def failure(self) -> Optional[RuntimeFault]:
        """The error that it amounts to, or ``None`` if there is no regression beyond the budget."""
        fault = first_fault([self.result.failure(), self.slices.failure() if self.slices else None])
        return None if fault is None else type(fault)(f"against the baseline {self._named()}: {fault}")

    def to_dict(self) -> Dict[str, object]:
        """The baseline, and the judgement as JSON-ready values."""
        base = self.baseline
        own = {"name": base.name, "version": base.version, "target": base.target, "digest": base.digest}
        sliced = {"slices": self.slices.to_dict()} if self.slices else {}
        return {"package": own, **self.result.to_dict(), **sliced}

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        sliced = self.slices.lines() if self.slices else []
        return [f"baseline: {self._named()}, {self.baseline.digest}", *self.result.lines(noun), *sliced]

    def _named(self) -> str:
        return line(f"{self.baseline.name} {self.baseline.version}")


def baseline_predictor(
    predictor: Predictor, path: PathLike, options: BackendOptions, trust: Optional[Trust] = None
) -> Predictor:
    """The package at ``path``, open, which promises what the one of ``predictor`` promises.

    ``trust``: whose signature it must have, as that one; it lies beside it.

    Raises:
        InputError: it does not. PackageError, BackendMissing, EngineError: as ``open_package`` and ``Predictor``.
    """
    try:
        baseline = open_package(path, replace(trust, signature=None) if trust else None)
    except PackageError as e:
        raise PackageError(f"the baseline: {e}") from e
    ours = contract_of(predictor.package.task, predictor.package.meta["preprocessing"])
    other = contract_difference(ours, baseline)
    if other:
        raise InputError(
            f"{os.fspath(path)}: {other}; a baseline is compared answer by answer, so it must read and answer the "
            "same: give another package, or leave the baseline out"
        )
    return Predictor(baseline, options, predictor.say)


def baseline_statistic(predictor: Predictor, baseline: Predictor, samples: Arrays, targets: Arrays) -> Arrays:
    """The statistic of what ``baseline`` answers to the ``samples``.

    Raises:
        PackageError: as ``Outputs.statistic``.
    """
    task = predictor.package.task
    parts, count = [], count_of(samples)
    size = block_rows((*task.inputs.tensors, *task.outputs.tensors), BLOCK)
    for start in range(0, count, size):
        predictor.tell(start, count, f"{task.inputs.noun} by the baseline")
        block = slice(start, start + size)
        answers = baseline.run(rows_of(samples, block))
        parts.append(task.outputs.statistic(answers, rows_of(targets, block)))
    return joined(parts)


def judge_regression(
    baseline: Package, outputs: Outputs, pair: Tuple[Arrays, Arrays], budgets: Budgets, slices: Optional[SlicesJudged]
) -> Regression:
    """The judgement on the ``pair`` of statistics, of ``baseline`` and of the package, on the same samples.

    Raises:
        InputError: as ``Outputs.judge``.
    """
    return Regression(baseline, _named(outputs.judge(*pair, budgets, 0)), slices)


def _named(judgement: Judgement) -> Judgement:
    """``judgement``, whose lines call the teacher the baseline, where it has a word for it."""
    if is_dataclass(judgement) and REFERENCE in {one.name for one in fields(judgement)}:
        return replace(judgement, **{REFERENCE: "baseline"})
    return judgement
