"""Bounds for timings that come in bursts, held against processes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.statistics.drops import percentile_lower_bound, percentile_upper_bound
from dlx_deploy.runtime.statistics.timings import block_medians, paired_speedup, percentile_bounds, timings_needed

BUDGET = 1.5
TRIALS = 200


def bursty(rng: np.random.Generator, n: int, length: float, share: float) -> np.ndarray:
    """Timings of about 1 ms that are twice as long during bursts of ``length`` on average: a Markov chain."""
    leave, enter = 1 / length, share / (1 - share) / length
    state = rng.random() < share
    states: list[bool] = []
    while len(states) < n:
        states += [state] * rng.geometric(leave if state else enter)
        state = not state
    return np.where(states[:n], 2.0, 1.0) * np.exp(0.03 * rng.standard_normal(n))


@pytest.mark.parametrize(("length", "n"), [(1, 300), (10, 300), (30, 1_000), (100, 3_000)])
def test_a_budget_that_bursts_break_is_hardly_ever_met(length: int, n: int) -> None:
    """15 % of the time is slow, so p90 is over the budget: what passes, passes falsely."""
    rng = np.random.default_rng(length)
    runs = [bursty(rng, n, length, 0.15) for _ in range(TRIALS)]
    uppers = [percentile_bounds(run.tolist(), 90, 0.95).upper for run in runs]
    passed = sum(upper is not None and upper <= BUDGET for upper in uppers)
    assert passed <= 0.05 * TRIALS
    if length > 1:  # the bound that takes timings for independent is what this replaces
        alone = [percentile_upper_bound(sorted(run), 90, 0.95) for run in runs]
        assert sum(upper is not None and upper <= BUDGET for upper in alone) > 0.1 * TRIALS


@pytest.mark.parametrize("length", [1, 10, 100])
def test_a_budget_that_holds_is_hardly_ever_missed(length: int) -> None:
    rng = np.random.default_rng(length)
    lowers = [percentile_bounds(bursty(rng, 600, length, 0.05).tolist(), 90, 0.95).lower for _ in range(TRIALS)]
    assert sum(lower is not None and lower > BUDGET for lower in lowers) <= 0.05 * TRIALS


def test_a_calm_machine_meets_its_budget() -> None:
    rng = np.random.default_rng(3)
    runs = [np.exp(0.03 * rng.standard_normal(300)).tolist() for _ in range(TRIALS)]
    every = [percentile_bounds(run, 90, 0.95) for run in runs]
    truth = float(np.exp(0.03 * 1.2816))
    assert sum(bounds.upper is not None and bounds.upper <= 1.1 for bounds in every) >= 0.95 * TRIALS
    assert sum(bounds.upper is None or bounds.upper >= truth for bounds in every) >= 0.95 * TRIALS
    assert sum(bounds.lower is not None and bounds.lower <= truth for bounds in every) >= 0.95 * TRIALS


@pytest.mark.parametrize("percentile", [50, 90, 95])
def test_the_percentile_is_the_one_asked_for(percentile: int) -> None:
    rng = np.random.default_rng(percentile)
    bounds = percentile_bounds(rng.permutation(np.arange(3_000)).tolist(), percentile, 0.95)
    assert bounds.lower is not None
    assert bounds.upper is not None
    assert bounds.lower < 30 * percentile < bounds.upper
    assert bounds.upper - bounds.lower < 300


def test_few_blocks_give_no_upper_bound() -> None:
    assert percentile_bounds([1.0] * 28, 90, 0.95).upper is None
    at_last = percentile_bounds(np.random.default_rng(2).random(29).tolist(), 90, 0.95)
    assert at_last.upper is not None
    assert (at_last.blocks, at_last.block) == (29, 1)
    assert percentile_bounds([1.0, 2.0], 90, 0.95).lower == 1.0
    nothing = percentile_bounds([], 90, 0.95)
    assert (nothing.lower, nothing.upper, nothing.blocks) == (None, None, 0)


def test_single_timings_give_the_order_statistics_of_independent_ones() -> None:
    values = np.random.default_rng(1).random(40)
    bounds, ranked = percentile_bounds(values.tolist(), 90, 0.95), sorted(values.tolist())
    assert bounds.upper == percentile_upper_bound(ranked, 90, 0.975)
    assert bounds.lower == percentile_lower_bound(ranked, 90, 0.975)


def test_blocks_grow_with_the_bursts() -> None:
    rng = np.random.default_rng(5)
    sizes = [percentile_bounds(bursty(rng, 6_000, length, 0.15).tolist(), 90, 0.95).block for length in (1, 10, 100)]
    assert sizes[0] == 5
    assert sizes == sorted(sizes)
    assert sizes[2] >= 40
    trend = percentile_bounds(list(range(300)), 90, 0.95)
    assert (trend.upper, trend.by_slowest) == (3 * 299, True)


@pytest.mark.parametrize("length", [10, 30, 100, 300])
def test_a_budget_that_drift_breaks_is_not_met_by_a_bound_without_blocks(length: int) -> None:
    """A slowly changing machine (autoregressive, lognormal): few blocks, and never met is what is barely not seen."""
    rng = np.random.default_rng(length)
    keep = np.exp(-1 / length)
    truth, wrong, used = float(np.exp(1.2816 * 0.3)), 0, 0
    for _ in range(TRIALS):
        steps = rng.standard_normal(1_000) * np.append(1.0, np.full(999, np.sqrt(1 - keep**2)))
        state = [steps[0]]
        for step in steps[1:]:
            state.append(keep * state[-1] + step)
        bounds = percentile_bounds(np.exp(0.3 * np.array(state)).tolist(), 90, 0.95)
        used += bounds.by_slowest
        wrong += bounds.by_slowest and bounds.upper is not None and bounds.upper < truth
    assert wrong <= 0.01 * TRIALS
    assert used > 0.1 * TRIALS


def test_a_budget_far_above_all_timings_is_met_on_a_busy_machine() -> None:
    """Half of the time is slow, in spells of a hundred: no order statistic of so few blocks, and no doubt either."""
    rng = np.random.default_rng(8)
    every = [percentile_bounds(bursty(rng, 600, 100, 0.5).tolist(), 90, 0.95) for _ in range(50)]
    assert sum(bounds.by_slowest for bounds in every) > 10
    assert all(bounds.upper is not None and bounds.upper < 10 for bounds in every)
    few = percentile_bounds([1.0] * 14 + [2.0] * 14, 90, 0.95)
    assert (few.upper, few.by_slowest) == (None, False)


def test_medians_of_blocks() -> None:
    assert block_medians(range(1, 61)) == [2 + 3 * i for i in range(20)]
    assert block_medians([3.0, 1.0]) == [3.0, 1.0]
    assert block_medians([3.0]) == [3.0]
    assert block_medians([]) == []
    assert len(block_medians(range(59))) == 20


@pytest.mark.parametrize("length", [1, 40, 150])
def test_the_bounds_of_a_speedup_cover_it(length: int) -> None:
    """Both are slowed alike; in bursts INT8 gains less, so the truth is the median over time."""
    rng = np.random.default_rng(length)
    wrong = 0
    for _ in range(TRIALS):
        busy = bursty(rng, 300, length, 0.3)
        fp32 = 1.1 * busy * np.exp(0.05 * rng.standard_normal(300))
        int8 = busy * np.exp(0.05 * rng.standard_normal(300))
        speedup = paired_speedup(block_medians(fp32.tolist()), block_medians(int8.tolist()), 0.95)
        assert speedup.lower is not None
        assert speedup.upper is not None
        assert speedup.lower <= speedup.ratio <= speedup.upper
        wrong += speedup.lower > 1.1
    assert wrong <= 0.05 * TRIALS + 4


def test_a_speedup_that_changes_with_the_machine_s_state_is_not_certain() -> None:
    slow = np.concatenate([np.full(10, 1.02), np.full(10, 1.2)])
    speedup = paired_speedup(slow.tolist(), [1.0] * 20, 0.95)
    assert speedup.blocks < 20  # neighbours are alike, so they count as one
    assert speedup.lower == pytest.approx(1.02)
    assert speedup.upper == pytest.approx(1.2)


def test_few_blocks_bound_no_speedup() -> None:
    speedup = paired_speedup([2.0] * 4, [1.0] * 4, 0.95)
    assert (speedup.ratio, speedup.lower, speedup.upper) == (pytest.approx(2.0), None, None)
    assert paired_speedup([2.0] * 5, [1.0] * 5, 0.95).lower == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("n", "block"), [(1, 1), (59, 1), (60, 1), (119, 1), (120, 2), (179, 2), (180, 3), (299, 4), (300, 5), (5_000, 5)]
)
def test_the_first_block_is_small_and_there_are_many(n: int, block: int) -> None:
    bounds = percentile_bounds(np.random.default_rng(4).permutation(n).tolist(), 90, 0.95)
    assert (bounds.block, bounds.blocks, bounds.bursts) == (block, n // block, False)


@pytest.mark.parametrize(("n", "block", "blocks"), [(63, 4, 15), (64, 8, 8), (80, 8, 10), (127, 8, 15), (640, 80, 8)])
def test_blocks_grow_while_eight_are_left(n: int, block: int, blocks: int) -> None:
    bounds = percentile_bounds(list(range(n)), 50, 0.6)
    assert (bounds.block, bounds.blocks) == (block, blocks)


@pytest.mark.parametrize(
    ("calm", "slow", "block", "bursts"), [(8, 4, 1, True), (13, 3, 2, False), (15, 3, 2, False), (116, 20, 16, False)]
)
def test_the_last_timings_count_as_the_others_do(calm: int, slow: int, block: int, bursts: bool) -> None:
    """Slow ones at the very end are alike as they would be anywhere."""
    bounds = percentile_bounds([1.0] * calm + [2.0] * slow, 50, 0.9)
    assert (bounds.block, bounds.bursts) == (block, bursts)


@pytest.mark.parametrize(("n", "size"), [(40, 1), (120, 2), (121, 2), (180, 3), (250, 4), (300, 5), (302, 5)])
@pytest.mark.parametrize("percentile", [20, 50, 90])
def test_the_bounds_are_the_median_of_the_rows_bounds(n: int, size: int, percentile: float) -> None:
    """Row i: the i-th timing of every block. Of an even number of rows, the outer one of the middle two."""
    values = np.random.default_rng(n).random(n).tolist()
    bounds = percentile_bounds(values, percentile, 0.9)
    assert (bounds.block, bounds.bursts) == (size, False)
    rows = [sorted(values[i : n // size * size][::size]) for i in range(size)]
    lowers = sorted(percentile_lower_bound(row, percentile, 0.95) for row in rows)
    uppers = sorted(percentile_upper_bound(row, percentile, 0.95) for row in rows)
    assert bounds.lower == lowers[(size - 1) // 2]
    assert bounds.upper == uppers[size // 2]


@pytest.mark.parametrize("percentile", [10, 90])
def test_with_too_few_blocks_for_half_the_error_the_outermost_counts(percentile: int) -> None:
    """30 blocks of two are enough for a bound at 0.95 (29) and too few for one at 0.975 (36)."""
    values = np.random.default_rng(6).random(60)
    values[[10, 11, 30, 31, 50, 51]] += 2  # slow in pairs
    if percentile == 10:
        values = 3 - values
    bounds = percentile_bounds(values.tolist(), percentile, 0.95)
    assert (bounds.block, bounds.blocks, bounds.bursts) == (2, 30, False)
    rows = [sorted(values[::2]), sorted(values[1::2])]
    assert rows[0] != rows[1]
    if percentile == 90:
        assert bounds.upper == max(values)
        assert bounds.lower == min(percentile_lower_bound(row, 90, 0.975) for row in rows)
    else:
        assert bounds.lower == min(values)
        assert bounds.upper == max(percentile_upper_bound(row, 10, 0.975) for row in rows)


@pytest.mark.parametrize(
    ("ratios", "blocks"),
    [
        ([1.0, 2.0] * 4, 8),  # neighbours differ
        ([1.0] * 7, 7),  # the same everywhere
        ([1.0] * 4 + [2.0] * 4, 8),  # too short to tell
        ([1.0] * 8 + [2.0] * 8, 8),
        ([1.0] * 9 + [2.0] * 8, 8),  # an odd one is left out
        ([1.0] * 16 + [2.0] * 16, 8),
    ],
)
def test_alike_neighbours_are_joined(ratios: list[float], blocks: int) -> None:
    speedup = paired_speedup(ratios, [1.0] * len(ratios), 0.9)
    assert speedup.blocks == blocks


def test_a_joined_pair_counts_by_its_mean() -> None:
    """Of logarithms: a ratio of 2 and one of 8 make 4."""
    speedup = paired_speedup([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, *[2.0, 8.0] * 4], [0.5] * 16, 0.6)
    assert speedup.blocks == 8
    assert speedup.ratio == pytest.approx(4.0)
    assert (speedup.lower, speedup.upper) == (pytest.approx(2.0), pytest.approx(8.0))


def test_a_speedup_is_bounded_at_its_median() -> None:
    """All five of five are on one side of the median with chance 1/32, which no other percentile gives."""
    ratios = [2.0, 3.0, 1.5, 4.0, 2.5]
    speedup = paired_speedup(ratios, [1.0] * 5, 0.968)
    assert (speedup.lower, speedup.ratio, speedup.upper) == (pytest.approx(1.5), pytest.approx(2.5), pytest.approx(4.0))
    speedup = paired_speedup(ratios, [1.0] * 5, 0.969)
    assert (speedup.lower, speedup.upper) == (None, None)


@pytest.mark.parametrize(("percentile", "confidence"), [(0, 0.95), (100, 0.95), (90, 1.0)])
def test_what_has_no_bound_is_refused(percentile: float, confidence: float) -> None:
    with pytest.raises(InputError):
        percentile_bounds([1.0] * 10, percentile, confidence)
    with pytest.raises(InputError):
        timings_needed(percentile, confidence)
