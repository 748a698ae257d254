from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.floors import (
    accuracy_floor,
    accuracy_lower_bound,
    accuracy_upper_bound,
    fewest_samples,
    most_of,
)


@pytest.mark.parametrize("n", [1, 2, 30, 599, 50_000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_bounds_are_clopper_and_pearson_s(n: int, confidence: float) -> None:
    for right in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        low, high = proportion_confint(right, n, alpha=2 * (1 - confidence), method="beta")
        assert accuracy_lower_bound(right, n, confidence) == pytest.approx(low, abs=1e-11)
        assert accuracy_upper_bound(right, n, confidence) == pytest.approx(high, abs=1e-11)


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.9, 0.97])
def test_coverage(truth: float) -> None:
    n, counts = 200, np.arange(201)
    chances = stats.binom.pmf(counts, n, truth)
    under = np.array([accuracy_lower_bound(k, n, 0.95) <= truth for k in counts.tolist()])
    assert 0.95 <= chances[under].sum() <= 0.99


@pytest.mark.parametrize("n", [1, 2, 9, 77, 1_000])
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.52, 0.91, 1.0])
def test_the_verdict_is_what_the_bounds_say(n: int, floor: float, share: float) -> None:
    verdict = accuracy_floor(round(n * share), n, floor, 0.95)
    assert 0 <= verdict.lower <= verdict.accuracy <= verdict.upper <= 1
    assert (verdict.verdict == "pass") == (verdict.lower >= floor)
    assert (verdict.verdict == "fail") == (verdict.upper < floor)
    if verdict.samples_needed is not None:
        assert verdict.samples_needed > verdict.samples
        assert verdict.verdict == "undecided"


def test_verdicts_say_what_was_seen_and_what_would_decide() -> None:
    passed = accuracy_floor(560, 599, 0.9, 0.95)
    assert (passed.verdict, passed.failure()) == ("pass", None)
    assert passed.explain() == (
        "accuracy 93.49 % on 599 samples, at least 91.58 % at 0.95 confidence; the floor is 90.00 %: met"
    )
    failed = accuracy_floor(500, 599, 0.9, 0.95)
    assert isinstance(failed.failure(), BudgetMissed)
    assert "at most 85.93 % at 0.95 confidence; the floor is 90.00 %: missed" in failed.explain()
    unsure = accuracy_floor(550, 599, 0.9, 0.95)
    assert isinstance(unsure.failure(), Undecided)
    assert unsure.explain().endswith(f"undecided; about {unsure.samples_needed} samples would decide")
    hopeless = accuracy_floor(540, 599, 0.91, 0.95)
    assert (hopeless.verdict, hopeless.samples_needed) == ("undecided", None)
    assert "improve the model or lower the floor" in hopeless.explain()


def test_the_samples_that_would_decide_mostly_do() -> None:
    needed = accuracy_floor(550, 599, 0.9, 0.95).samples_needed
    assert needed is not None
    least = next(k for k in range(int(0.9 * needed), needed) if accuracy_lower_bound(k, needed, 0.95) >= 0.9)
    assert 0.75 <= stats.binom.sf(least - 1, needed, 550 / 599) <= 0.9


@pytest.mark.parametrize(("floor", "samples"), [(0.9, 29), (0.99, 299), (0.5, 5), (0.001, 1)])
def test_fewest_samples(floor: float, samples: int) -> None:
    assert fewest_samples(floor, 0.95) == samples
    assert accuracy_lower_bound(samples, samples, 0.95) >= floor
    assert samples == 1 or accuracy_lower_bound(samples - 1, samples - 1, 0.95) < floor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0.5, 0.95), "there are no samples to judge"),
        ((11, 10, 0.5, 0.95), "11 of 10 samples are right; must be 0 to 10"),
        ((-1, 10, 0.5, 0.95), "-1 of 10"),
        ((1, 10, 1.0, 0.95), "the least accuracy is 1.0; must be at least 0 and under 1"),
        ((1, 10, -0.1, 0.95), "the least accuracy is -0.1"),
        ((1, 10, 0.5, 2), "the confidence is 2; must be at least 0.5 and under 1"),
    ],
)
def test_refusals(arguments: tuple[int, int, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy_floor(*arguments)


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_no_number_of_samples_shows_an_end(floor: float) -> None:
    with pytest.raises(InputError, match="must be over 0 and under 1"):
        fewest_samples(floor, 0.95)


def test_every_verdict_is_said_in_full() -> None:
    failed = accuracy_floor(500, 599, 0.9, 0.95)
    assert failed.explain() == (
        "accuracy 83.47 % on 599 samples, at most 85.93 % at 0.95 confidence; the floor is 90.00 %: missed"
    )
    unsure = accuracy_floor(550, 599, 0.9, 0.95)
    assert unsure.explain() == (
        f"accuracy 91.82 % on 599 samples, between {100 * unsure.lower:.2f} % and {100 * unsure.upper:.2f} % "
        "(each at 0.95 confidence); the floor is 90.00 %: undecided; "
        f"about {unsure.samples_needed} samples would decide"
    )
    hopeless = accuracy_floor(540, 599, 0.91, 0.95)
    assert "undecided; more samples would rather show a miss than a pass: improve the mod" in hopeless.explain()


def test_a_bound_that_meets_the_floor_exactly_meets_it() -> None:
    lower, upper = accuracy_lower_bound(90, 100, 0.95), accuracy_upper_bound(90, 100, 0.95)
    verdicts = [
        accuracy_floor(90, 100, floor, 0.95).verdict
        for floor in (lower, np.nextafter(lower, 1), upper, np.nextafter(upper, 1))
    ]
    assert verdicts == ["pass", "undecided", "undecided", "fail"]


@pytest.mark.parametrize(("room", "hopeful"), [(2e-6, True), (5e-7, False), (0.0, False), (-1e-3, False)])
def test_without_room_over_the_floor_no_number_is_promised(room: float, hopeful: bool) -> None:
    verdict = accuracy_floor(95, 100, 0.95 - room, 0.95)
    assert verdict.verdict == "undecided"
    assert (verdict.samples_needed is not None) is hopeful


@pytest.mark.parametrize(
    ("right", "n", "floor"),
    [
        (550, 599, 0.9),
        (5, 5, 0.9),
        (3, 3, 0.5),
        (60, 100, 0.55),
        (1, 1, 0.2),
        (98, 100, 0.96),
        (20, 20, 0.95),
        (10, 10, 0.8),
    ],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_samples_needed_is_the_largest_of_three(right: int, n: int, floor: float, confidence: float) -> None:
    verdict = accuracy_floor(right, n, floor, confidence)
    if verdict.verdict != "undecided":
        assert verdict.samples_needed is None
        return
    seen = right / n
    z = stats.norm.ppf([confidence, 0.8])
    spread = z[0] * np.sqrt(floor * (1 - floor)) + z[1] * np.sqrt(seen * (1 - seen))
    all_right = next(k for k in range(1, 10_000) if accuracy_lower_bound(k, k, confidence) >= floor)
    assert verdict.samples_needed == max(int(np.ceil((spread / (seen - floor)) ** 2)), n + 1, all_right)


@pytest.mark.parametrize(
    ("floor", "confidence", "samples"),
    [
        (0.5, 0.75, 2),
        (0.5, 0.875, 3),
        (0.1, 0.99, 2),
        (0.5, 0.5, 1),
        (0.01, 0.5, 1),
        (0.999, 0.5, 693),
        (0.99999, 0.9, 230258),
    ],
)
def test_fewest_samples_where_powers_come_out_even(floor: float, confidence: float, samples: int) -> None:
    assert fewest_samples(floor, confidence) == samples


def test_the_ends_of_what_is_asked() -> None:
    assert accuracy_lower_bound(0, 5, 0.95) == 0.0
    assert accuracy_upper_bound(5, 5, 0.95) == 1.0
    assert accuracy_lower_bound(1, 1, 0.5) == 0.5
    assert accuracy_floor(0, 5, 0, 0.5).verdict == "pass"
    with pytest.raises(InputError, match="no samples to judge"):
        accuracy_lower_bound(0, -1, 0.95)
    for confidence in (0.49, 1.0):
        with pytest.raises(InputError, match="the confidence is"):
            fewest_samples(0.9, confidence)


def test_what_a_share_can_be_expected_to_happen_to() -> None:
    for n, share in ((512, 0.02), (300, 0.005), (7, 0.3)):
        most = most_of(n, share, 1e-3)
        assert stats.binom.sf(most - 1, n, share) >= 1e-3 > stats.binom.sf(most, n, share)  # that many or more
    assert (most_of(5, 0.0, 1e-3), most_of(5, 1.0, 1e-3), most_of(3, 0.9, 1e-3)) == (0, 5, 3)
    with pytest.raises(InputError, match="no samples"):
        most_of(0, 0.1, 1e-3)
