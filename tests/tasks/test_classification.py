"""Which samples are golden."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.tasks.classification import clear_rows


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
