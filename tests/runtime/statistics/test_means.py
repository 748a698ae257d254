"""Bounds of means of bounded numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.means import Mean, fewest_samples_alike, mean_at_most

NUMBERS = st.lists(st.floats(-1, 1), min_size=1, max_size=50).map(np.array)


def test_the_published_bound() -> None:
    mean = Mean.of(np.array([0.0, 0.5, 1.0, 0.5]))
    log = math.log(2 / 0.05)
    assert (mean.value, mean.variance) == (0.5, pytest.approx(1 / 6))
    assert Mean(0.5, 1 / 6, 400).reach(0.95) == pytest.approx(math.sqrt(2 / 6 * log / 400) + 7 * log / (3 * 399))
    assert Mean(0.0, 0.0, 400, 2.0).reach(0.95) == pytest.approx(2 * 7 * log / (3 * 399))


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2])
def test_bounds_hold_as_often_as_they_promise(share: float) -> None:
    """Rare large numbers, which bounds that rest on a normal distribution miss."""
    draws = (np.random.default_rng(0).random((400, 300)) < share).astype(np.float64)
    means = [Mean.of(row) for row in draws]
    missed = [mean.value + mean.reach(0.9) < share for mean in means]
    assert np.mean(missed) <= 0.1
    normal = [m.value + 1.2816 * math.sqrt(m.variance / m.count) < share for m in means]
    assert np.mean(normal) > 0.1 or share == 0.2


@given(NUMBERS, st.floats(0.5, 0.99), st.floats(0, 0.99))
def test_verdicts_are_those_of_their_bounds(numbers: np.ndarray, confidence: float, limit: float) -> None:
    mean = Mean.of(numbers, 2.0)
    seen = mean_at_most(mean, limit, "drop", confidence)
    assert seen.lower <= seen.value <= seen.upper <= seen.value + 2
    assert mean.reach(confidence) <= mean.reach((1 + confidence) / 2)
    expected = "pass" if seen.upper <= limit else "fail" if seen.lower > limit else "undecided"
    assert seen.verdict == expected
    if seen.samples_needed is not None:
        needed = seen.samples_needed
        assert needed > seen.samples
        assert mean_at_most(Mean(mean.value, mean.variance, needed, 2.0), limit, "drop", confidence).verdict == "pass"


def test_sentences() -> None:
    close = Mean(0.01, 0.0001, 2000, 2.0)
    passed, undecided = (mean_at_most(close, limit, "drop", 0.95) for limit in (0.05, 0.011))
    bounds = "at most 1.92 points at 0.95 confidence"
    assert passed.explain() == f"drop 1.00 points on 2000 samples, {bounds}; limit 5.00 points: met"
    assert passed.failure() is None
    assert "between 0.08 points and 1.92 points (each at 0.95 confidence)" in undecided.explain()
    assert undecided.explain().endswith(f"undecided; about {undecided.samples_needed} samples would decide")
    assert isinstance(undecided.failure(), Undecided)
    missed = mean_at_most(Mean(0.2, 0.0001, 2000, 2.0), 0.05, "drop", 0.95)
    assert missed.explain().endswith("at least 19.08 points at 0.95 confidence; limit 5.00 points: missed")
    assert isinstance(missed.failure(), BudgetMissed)
    hopeless = mean_at_most(Mean(0.055, 0.01, 200, 2.0), 0.05, "drop", 0.95)
    assert (hopeless.verdict, hopeless.samples_needed) == ("undecided", None)
    assert "more samples would rather show a miss than a pass" in hopeless.explain()


def test_samples_that_agree() -> None:
    least = fewest_samples_alike(0.05, 0.95)
    assert least is not None
    for count, verdict in ((least, "pass"), (least - 1, "undecided")):
        assert mean_at_most(Mean(0.0, 0.0, count, 2.0), 0.05, "drop", 0.95).verdict == verdict
    assert fewest_samples_alike(0.0, 0.95) is None
    assert Mean.of(np.array([0.3]), 2.0).reach(0.95) == 2.0


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match=r"there are no samples to compare; at least one is needed"):
        Mean.of(np.array([]))
    mean = Mean(0.0, 0.0, 10)
    with pytest.raises(InputError, match=r"the limit is 1\.5; must be at least 0 and under 1"):
        mean_at_most(mean, 1.5, "drop", 0.95)
    with pytest.raises(InputError, match=r"the confidence is 0\.2; must be at least 0\.5 and under 1"):
        mean_at_most(mean, 0.1, "drop", 0.2)
