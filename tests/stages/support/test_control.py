"""What distillation gave, by right and wrong answers that are counted by hand, and by a mean of scores."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET

from dlx_deploy.config import Config, Distill, load_config
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Output
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.control import control_evidence, control_notes, gain_of
from dlx_deploy.stages.support.training import untaught
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.means import MeanScores
from dlx_deploy.tasks.paired import Paired
from dlx_deploy.tasks.verification import Accuracy, Comparison, Row

N = 400
TOP1 = Paired("top1", "top-1", "label")


def verified(comparison: Comparison, **statistics: np.ndarray) -> Accuracy:
    arrays = {name: {"one": array} for name, array in statistics.items()}
    rows = tuple(
        Row(
            model=name,
            score=comparison.score(array),
            evidence=comparison.evidence(arrays["teacher"], array),
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        for name, array in arrays.items()
    )
    held = control_evidence(comparison, arrays)
    return Accuracy(metric="m", title="M", judge="native", n=N, shipped="student", rows=rows, control=held)


def right(wrong: range) -> np.ndarray:
    return ~np.isin(np.arange(N), wrong)


def test_the_gain_is_paired_and_bounded_on_both_sides() -> None:
    teacher, control, student = right(range(4)), right(range(40)), right(range(30, 50))
    accuracy = verified(TOP1, teacher=teacher, control=control, student=student)
    gain = gain_of(TOP1, accuracy, 0.95)
    assert gain is not None
    # Of the control's 40 errors the student has 10; it has 10 of its own.
    assert (gain.student, gain.control, gain.value) == (0.95, 0.9, pytest.approx(20 / N))
    assert gain.lower == pytest.approx(-drop_upper_bound(10, 30, N, 0.95))
    assert gain.upper == pytest.approx(drop_upper_bound(30, 10, N, 0.95))
    assert (gain.lead, gain.lead_lower) == (pytest.approx(36 / N), pytest.approx(-drop_upper_bound(0, 36, N, 0.95)))
    assert "student 95.00 %, control (the same network, trained without a teacher) 90.00 %: +5.00 points" in gain.text
    assert control_notes(TOP1, accuracy, 0.95) == []


def test_what_must_be_said() -> None:
    def said(teacher: int, control: int, student: int) -> str:
        arrays = {"teacher": right(range(teacher)), "control": right(range(control)), "student": right(range(student))}
        return "; ".join(control_notes(TOP1, verified(TOP1, **arrays), 0.95))

    assert "distillation is not shown to help: the student is +0.25 points beside the control, at least -" in said(
        1, 9, 8
    )
    assert said(1, 9, 9).startswith("distillation is not shown to help: the student is +0.00 points")
    worse = said(1, 9, 40)
    assert "distillation made the student worse: 7.75 points under the control, at least " in worse
    assert "lower distill.alpha" in worse
    weak = said(39, 40, 5)
    assert weak.startswith("the teacher is hardly better than the control: +0.25 points, at least -")
    assert "it has little to teach" in weak
    assert "hardly better" not in said(1, 40, 5)


def test_it_is_the_task_s_own_statistic() -> None:
    comparison = MeanScores("score", "score", "target", lambda targets: 0.0)
    rng = np.random.default_rng(0)
    control = rng.uniform(0.2, 0.4, N)
    gain = gain_of(
        comparison, verified(comparison, teacher=control + 0.5, control=control, student=control + 0.25), 0.9
    )
    assert gain is not None
    assert (gain.value, gain.lead) == (pytest.approx(0.25), pytest.approx(0.5))
    assert 0 < gain.lower < 0.25 < gain.upper


def test_without_a_control_nothing_is_said_and_nothing_is_written() -> None:
    accuracy = verified(TOP1, teacher=right(range(4)), student=right(range(3)))
    assert accuracy.control is UNSET
    assert gain_of(TOP1, accuracy, 0.95) is None
    assert control_notes(TOP1, accuracy, 0.95) == []
    assert b"control" not in canonical_json(accuracy)


def test_the_control_is_a_step_that_asks_no_teacher_and_changes_no_other() -> None:
    target = load_target("jetson").profile
    plain, steps = (
        {s.name: s for s in steps_for(c, target)} for c in (Config(), load_config(None, ["distill.control=true"]))
    )
    control = steps["distill-control"]
    assert set(control.inputs) == {"data"}
    assert steps["distill"] == plain["distill"]
    assert steps["prune"].inputs["model"] == Output("distill", "model")
    candidates = ("teacher", "control", "student", "pruned", "quantized")
    assert tuple(name for name in steps["verify"].inputs if name in candidates) == candidates
    assert "distill-control" not in plain


def test_one_control_serves_every_way_of_teaching() -> None:
    plain = untaught(Distill(epochs=3, learning_rate=0.2))
    assert (plain.alpha, plain.epochs, plain.learning_rate) == (0.0, 3, 0.2)
    other = Distill(
        epochs=3,
        learning_rate=0.2,
        method="dkd",
        beta=3.0,
        temperature=2.0,
        standardize=True,
        soft_warmup=0.1,
        control=True,
    )
    assert untaught(other) == plain
