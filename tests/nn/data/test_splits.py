from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.nn.data.splits import stratified, without

labels_strategy = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(lambda x: np.array(x, dtype=np.int64))


@given(labels_strategy, st.integers(0, 100), st.integers(0, 2), st.integers(0, 3))
def test_draws_the_count_by_shares_and_leaves_some(labels: np.ndarray, count: int, leave: int, seed: int) -> None:
    drawn = stratified(labels, count, np.random.default_rng(seed), leave=leave)
    classes, sizes = np.unique(labels, return_counts=True)
    taken = np.array([np.count_nonzero(labels[drawn] == c) for c in classes])
    room = np.maximum(sizes - leave, 0)
    assert len(drawn) == min(count, room.sum())
    assert len(np.unique(drawn)) == len(drawn)
    assert (taken <= room).all()
    if len(drawn) >= np.count_nonzero(room):
        assert (taken[room > 0] >= 1).all()
    if not leave and len(drawn) >= len(labels) / sizes.min():  # every share is at least one: plain rounding
        assert (np.abs(taken - sizes * len(drawn) / len(labels)) < 1 + 1e-9).all()


@given(labels_strategy, st.integers(0, 100))
def test_the_same_seed_gives_the_same_draw(labels: np.ndarray, count: int) -> None:
    first, again = (stratified(labels, count, np.random.default_rng(7)) for _ in range(2))
    assert first.tolist() == again.tolist() == sorted(first.tolist())


def test_another_seed_gives_another_draw() -> None:
    labels = np.zeros(100, dtype=np.int64)
    draws = {tuple(stratified(labels, 10, np.random.default_rng(seed)).tolist()) for seed in range(5)}
    assert len(draws) == 5


def test_without_is_the_complement() -> None:
    assert without(5, np.array([1, 3], dtype=np.int64)).tolist() == [0, 2, 4]


def test_classes_are_drawn_where_not_all_can_be() -> None:
    labels = np.arange(1000)
    first, other = (stratified(labels, 250, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(first) == len(set(first.tolist())) == 250
    assert abs(int(first.mean()) - 500) < 100, "not the first ones in the order of their names"
    assert set(first.tolist()) != set(other.tolist())
