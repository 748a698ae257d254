"""Right or wrong per sample, and which inputs are golden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.errors import ConfigError
from dlx_deploy.tasks.classification import clear_rows, paired_counts, top1


def logits(*margins: float) -> np.ndarray:
    """Two classes and a third far behind; the best is now one, now the other."""
    rows = [[1.0 + m, 1.0, -5.0] if i % 2 else [1.0, 1.0 + m, -5.0] for i, m in enumerate(margins)]
    return np.array(rows, np.float32)


def test_near_ties_are_passed_over() -> None:
    assert clear_rows(logits(0.1, 3.0, 0.19, 2.0, 0.21), 0.1, 3).tolist() == [1, 3, 4]


def test_clear_rows_come_in_their_order() -> None:
    assert clear_rows(logits(1.0, 3.0, 2.0, 4.0), 0.1, 2).tolist() == [0, 1]


def test_too_few_are_filled_up_with_the_clearest() -> None:
    assert clear_rows(logits(0.05, 3.0, 0.15, 0.1), 0.1, 3).tolist() == [1, 2, 3]
    assert clear_rows(logits(0.05, 0.02), 0.1, 8).tolist() == [0, 1]


def test_one_class_has_no_second() -> None:
    assert clear_rows(np.ones((5, 1), np.float32), 0.1, 3).tolist() == [0, 1, 2]


@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=30), st.integers(1, 8), st.floats(0, 1))
def test_no_clear_row_is_left_out_for_another(margins: list[float], count: int, tolerance: float) -> None:
    given = logits(*margins)
    rows = clear_rows(given, tolerance, count)
    best = np.sort(given, axis=1)
    margin = best[:, -1] - best[:, -2]
    left = np.setdiff1d(np.arange(len(given)), rows)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(given))
    assert not ((margin[left] > 2 * tolerance).any() and (margin[rows] <= 2 * tolerance).any())


def test_top1_and_pairs() -> None:
    labels = np.array([0, 1, 2, 0], np.int64)
    teacher = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]  # right, right, right, wrong
    student = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]  # right, wrong, wrong, right
    assert (top1(teacher, labels), top1(student, labels)) == (0.75, 0.5)
    assert paired_counts(teacher, student, labels) == (2, 1, 4)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 3)))
def test_pairs_account_for_the_difference_in_accuracy(rows: tuple[list[int], list[int], list[int]]) -> None:
    teacher, student = (np.eye(4, dtype=np.float32)[row] for row in rows[:2])
    labels = np.array(rows[2], np.int64)
    b, c, n = paired_counts(teacher, student, labels)
    assert (b - c) / n == pytest.approx(top1(teacher, labels) - top1(student, labels))
    assert paired_counts(student, teacher, labels) == (c, b, n)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros((2, 1), np.int64)])
def test_labels_that_do_not_fit(labels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"logits are \[2, 5\] and labels .*rule: \[N, classes\] and \[N\]"):
        top1(np.zeros((2, 5), np.float32), labels)


def test_no_labels_at_all() -> None:
    with pytest.raises(ConfigError, match="N at least 1"):
        top1(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))
