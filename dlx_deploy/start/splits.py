"""The splits that data need so that the gate can decide, and the smallest budget that it can."""

from __future__ import annotations

from dlx_deploy.config import Data, Gate
from dlx_deploy.nn.data.overview import Overview
from dlx_deploy.start.wish import Choices
from dlx_deploy.tasks import Task

__all__ = ["choose_splits"]

_DROPS = (0.02, 0.03, 0.05, 0.1, 0.2)
_FRACTIONS = (0.2, 1 / 3, 0.5)
"""Of the training samples, where there is no test folder: as few as the gate can do with."""
_FEWEST_OF_A_CLASS = 4
"""One for each split, and one to spare: with fewer a drawn split may lack the class."""


def choose_splits(seen: Overview, task: Task, *, finished: bool) -> Choices:
    """``gate.max_drop`` and ``data.test_fraction`` so that the task's own statistic can decide, if any can.

    ``finished``: nothing is trained.
    """
    given = finished or "test" in seen.splits
    metrics = {"classes": float(max(len(seen.classes), 2))}
    best: tuple[int, float, float, list[str]] | None = None
    for drop in _DROPS:
        for fraction in (Data().test_fraction,) if given else _FRACTIONS:
            count = _tested(seen, fraction, finished=finished)
            notes = task.answers.comparison.split_notes(Gate(max_drop=drop), count, metrics)
            if best is None or len(notes) < best[0]:
                best = len(notes), drop, fraction, notes
    assert best is not None, "there are budgets to try"
    _, drop, fraction, notes = best
    count = _tested(seen, fraction, finished=finished)
    values: dict[str, object] = {"gate.max_drop": drop}
    enough = "with so few even a wide budget may stay undecided" if notes else "enough to decide on this budget"
    reasons = {"gate.max_drop": f"{count} test {task.inputs.noun}: {enough}"}
    if not given:
        values["data.test_fraction"] = round(fraction, 4)
        reasons["data.test_fraction"] = f"there is no test split: {count} {task.inputs.noun} are drawn for it"
    drawn = [split for split in ("validation", "test") if split not in seen.splits]
    if drawn and not finished and seen.classes and seen.smallest < _FEWEST_OF_A_CLASS:
        values["data.allow_missing_classes"] = True
        reasons["data.allow_missing_classes"] = f"the smallest class has {seen.smallest}: a split may lack it"
    return Choices(values, reasons, tuple(notes))


def _tested(seen: Overview, fraction: float, *, finished: bool) -> int:
    """How many samples the gate will have, give or take those that calibration sets aside."""
    if not finished:
        return seen.count("test", Data(test_fraction=fraction))
    if "test" in seen.splits and "validation" in seen.splits:
        return seen.splits["test"]
    whole = seen.splits.get("test", seen.splits.get("validation", seen.splits.get("train", 0)))
    return round(whole * (1 - Data().validation_fraction))
