"""Answers that have a score each: what both halves make of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.tasks.means import judge_scores
from dlx_deploy.runtime.tasks.task import Budgets
from dlx_deploy.tasks.means import MeanScores
from dlx_deploy.tasks.verification import Accuracy, Row

SCORES = MeanScores("fit", "fit", "truth", lambda targets: float(targets["truth"].mean()))
COUNT = 2000


def scores(mean: float) -> Mapping[str, np.ndarray]:
    """Scores of that mean, which differ a little."""
    return {"score": np.clip(mean + np.linspace(-0.02, 0.02, COUNT), 0, 1)}


def accuracy(shipped: float, constant: float = 0.5, teacher: float = 0.9) -> Accuracy:
    ours, theirs = scores(teacher), scores(shipped)
    rows = tuple(
        Row(
            model=name,
            score=SCORES.score(own),
            evidence=SCORES.evidence(ours, own),
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        for name, own in (("teacher", ours), ("small", theirs))
    )
    facts = SCORES.facts({"truth": np.array([constant])})
    kept = Accuracy(metric="fit", title="fit", judge="native", n=COUNT, shipped="small", rows=rows, facts=facts)
    return msgspec.json.decode(canonical_json(kept), type=Accuracy)


@pytest.mark.parametrize(
    ("shipped", "budgets", "verdicts", "error"),
    [
        (0.895, Gate(max_drop=0.05), ["pass", "pass"], None),
        (0.895, Gate(max_drop=0.006, allow_chance=True), ["undecided"], Undecided),
        (0.8, Gate(max_drop=0.05), ["fail", "pass"], BudgetMissed),
        (0.895, Gate(max_drop=0.05, min_accuracy=0.85), ["pass", "pass"], None),
        (0.895, Gate(max_drop=0.05, min_accuracy=0.95), ["pass", "fail"], BudgetMissed),
    ],
)
def test_a_build_and_a_device_give_the_same_verdict(
    shipped: float, budgets: Gate, verdicts: list[str], error: type[Exception] | None
) -> None:
    measured = accuracy(shipped)
    gates = SCORES.judge(budgets, measured)
    assert [gate.verdict for gate in gates] == verdicts
    on_device = judge_scores(
        scores(0.9)["score"],
        scores(shipped)["score"],
        "fit",
        Budgets(budgets.max_drop, budgets.confidence, budgets.min_accuracy),
        3,
    )
    assert type(on_device.failure()) is (error or type(None))
    drop = SCORES.drop(measured.row("small"), measured, budgets.confidence)
    assert (drop.value, drop.upper) == (gates[0].value, on_device.drop.upper)
    assert on_device.drop.value == drop.value
    assert on_device.lines("images")[-1] == "3 images have another target than when it was built"
    assert gates[0].text.startswith(on_device.drop.explain())
    if budgets.min_accuracy:
        assert on_device.shortfall is not None
        assert gates[1].text.startswith(on_device.shortfall.explain())


def test_a_teacher_that_a_constant_equals_is_refused() -> None:
    *_, chance = SCORES.judge(Gate(), accuracy(0.9, constant=0.9))
    assert (chance.gate, chance.verdict) == ("chance", "fail")
    assert "not clearly better than always giving one answer, which reaches 90.00 %" in chance.text
    assert "set gate.allow_chance = true" in chance.text
    (_, floor) = SCORES.judge(Gate(min_accuracy=0.8), accuracy(0.9, constant=0.85))
    assert floor.verdict == "pass"
    assert floor.text.endswith("always giving one answer reaches 85.00 %, so this floor shows little")


def test_what_must_not_go_unseen() -> None:
    (few,) = SCORES.split_notes(Gate(max_drop=0.05), 100, {})
    assert few.startswith("the test split has 100 samples, too few to decide: gate.max_drop 0.05 of fit at")
    assert SCORES.split_notes(Gate(max_drop=0.05), 1000, {}) == []
    (none,) = SCORES.split_notes(Gate(max_drop=0.0), 1000, {})
    assert none.endswith("clearly better than its teacher; allow a drop")
    seen = {"validation_fit": 0.6, "validation_constant": 0.7, "validation_samples": 50.0}
    (poor,) = SCORES.teacher_notes(Gate(), seen)
    assert "60.00 % on 50 validation samples, no better than always giving one answer (70.00 %)" in poor
    (under,) = SCORES.teacher_notes(Gate(min_accuracy=0.65), seen)
    assert "under gate.min_accuracy 0.65" in under
    assert SCORES.teacher_notes(Gate(), {**seen, "validation_constant": 0.5}) == SCORES.teacher_notes(Gate(), {}) == []
    (fallen,) = SCORES.shipped_notes(Gate(), accuracy(0.5))
    assert "has fit 50.00 %, not clearly more than always giving one answer (50.00 %)" in fallen
    assert (
        SCORES.shipped_notes(Gate(), accuracy(0.8)) == SCORES.shipped_notes(Gate(min_accuracy=0.1), accuracy(0.5)) == []
    )


def test_a_floor_out_of_range_is_refused() -> None:
    one = scores(0.5)["score"]
    with pytest.raises(InputError, match=r"the least score is 1\.2; must be at least 0 and under 1"):
        judge_scores(one, one, "fit", Budgets(0.1, 0.95, 1.2), 0)
