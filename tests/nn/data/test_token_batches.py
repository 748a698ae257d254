from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.token_batches import padding_share, plan_batches

sets = st.lists(st.integers(1, 64), min_size=8, max_size=300).map(lambda x: np.array(x, np.int64))


def flat(plan: list[list[np.ndarray]]) -> list[int]:
    return [int(i) for step in plan for part in step for i in part]


@given(sets, st.integers(64, 1000), st.integers(0, 5), st.integers(0, 3), st.integers(1, 8))
def test_every_sequence_exactly_once_within_the_budget(
    lengths: np.ndarray, budget: int, seed: int, epoch: int, processes: int
) -> None:
    plan = plan_batches(lengths, budget, seed, epoch, processes)
    assert sorted(flat(plan)) == list(range(len(lengths)))
    for step in plan:
        assert len(step) == processes
        rows = np.concatenate(step)
        assert len(rows) * lengths[rows].max() <= budget
        sizes = [len(part) for part in step]
        assert max(sizes) - min(sizes) <= 1


def naive(lengths: np.ndarray, budget: int, processes: int) -> list[list[np.ndarray]]:
    """What is often written: sort, cut, and round to the processes by repeating."""
    batches, rows = [], np.argsort(lengths)
    size = max(budget // int(lengths.max()), 1)
    for i in range(0, len(rows) - size + 1, size):  # drops the last, short batch
        batches.append(rows[i : i + size])
    while len(batches) % processes:
        batches.append(batches[0])
    return [batches[i : i + processes] for i in range(0, len(batches), processes)]


def test_the_naive_plan_would_not_pass() -> None:
    lengths = np.arange(1, 51)
    plan = naive(lengths, 200, 3)
    assert len(flat(plan)) != len(set(flat(plan))) or set(flat(plan)) != set(range(50))


@given(sets, st.integers(64, 1000), st.integers(2, 8))
def test_steps_do_not_depend_on_the_number_of_processes(lengths: np.ndarray, budget: int, processes: int) -> None:
    alone = plan_batches(lengths, budget, 3, 1)
    shared = plan_batches(lengths, budget, 3, 1, processes)
    assert [sorted(rows) for (rows,) in alone] == [sorted(np.concatenate(step)) for step in shared]


@given(sets, st.integers(0, 5))
def test_a_plan_is_a_function_of_seed_and_epoch(lengths: np.ndarray, seed: int) -> None:
    first, again = (plan_batches(lengths, 128, seed, 1, 2) for _ in range(2))
    assert flat(first) == flat(again)


def test_epochs_and_seeds_differ_in_order_and_in_company() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 400)
    plans = [plan_batches(lengths, 512, *key) for key in ((0, 0), (0, 1), (1, 0))]
    companies = [{tuple(sorted(part)) for (part,) in plan} for plan in plans]
    assert len({tuple(flat(plan)) for plan in plans}) == 3
    assert not companies[0] & companies[1]
    assert not companies[0] & companies[2]


def test_little_is_padding_and_steps_are_shared_evenly() -> None:
    lengths = np.random.default_rng(0).lognormal(3.5, 0.8, 4000).astype(np.int64).clip(1, 512)
    plan = plan_batches(lengths, 4096, 0, 0, 4)
    shuffled = np.random.default_rng(0).permutation(4000).reshape(-1, 1, 32)
    assert padding_share(plan, lengths) < 0.15
    assert padding_share(list(shuffled), lengths) > 0.5
    work = [[len(part) * lengths[part].max() for part in step] for step in plan]
    assert np.mean([min(step) / max(step) for step in work]) > 0.85


def test_padding_is_counted() -> None:
    assert padding_share([[np.array([0, 1])], [np.array([2])]], np.array([2, 4, 3])) == pytest.approx(1 - 9 / 11)


def test_what_cannot_be_planned() -> None:
    with pytest.raises(DataError, match=r"sequence 1 has 9 tokens and max_tokens is 8; a batch must hold the longest"):
        plan_batches(np.array([3, 9]), 8, 0, 0)
    with pytest.raises(DataError, match=r"there are 2 sequences for 3 processes; each needs at least one"):
        plan_batches(np.array([3, 9]), 80, 0, 0, 3)
