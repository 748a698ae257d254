"""Answers that are right or wrong: their share, and the pairs of a teacher's and a model's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.config import Gate
from dlx_deploy.runtime.tasks.classes import Classes as OnDevice
from dlx_deploy.tasks import TASKS, find_task
from dlx_deploy.tasks.classes import Classes
from dlx_deploy.tasks.paired_gates import counts
from dlx_deploy.tasks.verification import Accuracy, Row

COMPARISON = Classes().comparison
DEVICE = OnDevice(("a", "b", "c", "d"))


def right(answers: list[int], labels: list[int]) -> dict[str, np.ndarray]:
    logits = np.eye(4, dtype=np.float32)[answers]
    return dict(DEVICE.statistic({"logits": logits}, {COMPARISON.target: np.array(labels, np.int64)}))


def test_scores_and_pairs() -> None:
    labels = [0, 1, 2, 0]
    teacher, student = right([0, 1, 2, 1], labels), right([0, 2, 1, 0], labels)
    assert (COMPARISON.score(teacher), COMPARISON.score(student)) == (0.75, 0.5)
    assert COMPARISON.evidence(teacher, student) == {"b": 2, "c": 1, "changed": 3}
    assert COMPARISON.facts({"label": np.array(labels)}) == {"largest_class": 0.5}


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 3)))
def test_pairs_account_for_the_difference_in_accuracy(rows: tuple[list[int], list[int], list[int]]) -> None:
    labels = rows[2]
    teacher, student = right(rows[0], labels), right(rows[1], labels)
    evidence = COMPARISON.evidence(teacher, student)
    row = Row(model="m", score=COMPARISON.score(student), evidence=evidence, size_bytes=1, macs=1, parameters=1)
    b, c = counts(row)
    accuracy = Accuracy(metric="top1", title="top-1", judge="native", n=len(labels), shipped="m", rows=(row,))
    drop = COMPARISON.drop(row, accuracy, 0.95)
    assert drop.value == (b - c) / len(labels) == pytest.approx(COMPARISON.score(teacher) - COMPARISON.score(student))
    assert drop.upper >= drop.value
    assert COMPARISON.evidence(student, teacher) == {"b": c, "c": b, "changed": evidence["changed"]}
    (gate,) = COMPARISON.judge(Gate(), accuracy)
    assert (gate.metric, gate.value, gate.bound) == ("top1_drop", drop.value, drop.upper)


def test_training_and_verification_call_a_metric_the_same() -> None:
    for name in TASKS:
        answers = find_task(name).answers
        assert (answers.metric.name, answers.metric.title) == (answers.comparison.name, answers.comparison.title)
