from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.drops import (
    drop_lower_bound,
    drop_upper_bound,
    non_inferiority,
    percentile_lower_bound,
    percentile_upper_bound,
)


def score(delta: float, b: int, c: int, n: int) -> float:
    """Tango's T(delta), straight from the restricted likelihood: its maximum is searched for, not solved for."""

    def minus_log_likelihood(q: float) -> float:
        p = q + delta
        terms = [(b, p), (c, q), (n - b - c, 1 - p - q)]
        return -sum(k * math.log(max(x, 1e-300)) for k, x in terms if k)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


def brute_force(b: int, c: int, n: int, confidence: float) -> float:
    z = NormalDist().inv_cdf(confidence)
    return float(optimize.brentq(lambda x: score(x, b, c, n) + z, (b - c) / n + 1e-9, 1 - 1e-9, xtol=1e-12))


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 20_000))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


confidences = st.floats(0.5, 0.999)


@pytest.mark.parametrize(
    ("table", "level", "lower", "upper", "digits"),
    [
        pytest.param((43, 0, 1, 0), 0.90, -0.096, 0.037, 3, id="tango-1998-crossover-of-soft-contact-lenses"),
        pytest.param((4, 9, 3, 16), 0.95, -0.027, 0.390, 3, id="tango-1998"),
        pytest.param((53, 16, 8, 9), 0.95, -0.020, 0.207, 3, id="agresti-and-min-2005"),
        pytest.param((1, 1, 7, 12), 0.95, -0.517, -0.026, 3, id="fagerland-lydersen-laake-2014-bentur-2009"),
        pytest.param((565, 28, 25, 0), 0.90, -0.0148, 0.0247, 4, id="propcis-scoreci-mp"),
    ],
)
def test_bounds_are_the_printed_ones(
    table: tuple[int, int, int, int], level: float, lower: float, upper: float, digits: int
) -> None:
    """Intervals at a two-sided ``level`` as they are in print, of tables (both, first alone, second alone, neither).

    Tango 1998, Statistics in Medicine 17:891-908; Agresti and Min 2005, ibid. 24:729-740; Fagerland, Lydersen and Laake
    2014, ibid. 33:2850-2875. The R package ratesci (tests/testthat/test3.R) cites these four so; the fifth is what
    ``PropCIs::scoreci.mp(25, 28, 618, 0.90)`` prints.
    """
    _, b, c, _ = table
    one_sided = (1 + level) / 2
    seen = drop_lower_bound(b, c, sum(table), one_sided), drop_upper_bound(b, c, sum(table), one_sided)
    assert seen == pytest.approx((lower, upper), abs=0.5 * 10**-digits)


@pytest.mark.parametrize(
    ("b", "c", "n", "upper"), [(120, 80, 5_000, 0.0127), (220, 180, 10_000, 0.0073), (24, 16, 1_000, 0.0189)]
)
def test_upper_bound_of_worked_examples(b: int, c: int, n: int, upper: float) -> None:
    assert drop_upper_bound(b, c, n, 0.95) == pytest.approx(upper, abs=5e-5)


@pytest.mark.parametrize(
    ("b", "c", "n"),
    [(120, 80, 5_000), (3, 1, 20), (0, 5, 50), (5, 0, 50), (10, 10, 600), (1, 0, 600), (30, 20, 60), (400, 100, 600)],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_bounds_are_the_roots_of_the_score(b: int, c: int, n: int, confidence: float) -> None:
    assert drop_upper_bound(b, c, n, confidence) == pytest.approx(brute_force(b, c, n, confidence), abs=2e-6)
    assert drop_lower_bound(b, c, n, confidence) == pytest.approx(-brute_force(c, b, n, confidence), abs=2e-6)


@pytest.mark.parametrize("n", [1, 10, 539, 100_000])
def test_without_flips_the_bound_is_the_closed_form(n: int) -> None:
    z2 = NormalDist().inv_cdf(0.95) ** 2
    assert drop_upper_bound(0, 0, n, 0.95) == pytest.approx(z2 / (n + z2), rel=1e-9)
    assert drop_lower_bound(0, 0, n, 0.95) == pytest.approx(-z2 / (n + z2), rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, 600])
def test_all_lost_and_all_won(n: int) -> None:
    assert drop_upper_bound(n, 0, n, 0.95) == 1.0
    assert drop_lower_bound(0, n, n, 0.95) == -1.0
    z2 = NormalDist().inv_cdf(0.95) ** 2
    assert drop_lower_bound(n, 0, n, 0.95) == pytest.approx((n - z2) / (n + z2), rel=1e-9)


@given(counts(), confidences)
def test_bounds_enclose_the_drop(bcn: tuple[int, int, int], confidence: float) -> None:
    b, c, n = bcn
    lower, upper = drop_lower_bound(b, c, n, confidence), drop_upper_bound(b, c, n, confidence)
    assert -1 <= lower <= (b - c) / n <= upper <= 1


@given(counts(), confidences, confidences)
def test_more_confidence_never_lowers_the_bound(bcn: tuple[int, int, int], one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert drop_upper_bound(*bcn, low) <= drop_upper_bound(*bcn, high) + 1e-12


@given(counts(), confidences)
def test_one_more_loss_never_lowers_the_bound(bcn: tuple[int, int, int], confidence: float) -> None:
    b, c, n = bcn
    if b + c < n:
        assert drop_upper_bound(b + 1, c, n, confidence) >= drop_upper_bound(b, c, n, confidence) - 1e-12


@given(counts(), confidences)
def test_twice_the_images_never_raise_the_bound(bcn: tuple[int, int, int], confidence: float) -> None:
    b, c, n = bcn
    assert drop_upper_bound(2 * b, 2 * c, 2 * n, confidence) <= drop_upper_bound(b, c, n, confidence) + 1e-12


@pytest.mark.parametrize(("p_lost", "p_won", "n"), [(0.03, 0.02, 600), (0.01, 0.01, 600), (0.06, 0.03, 300)])
def test_coverage(p_lost: float, p_won: float, n: int) -> None:
    rng = np.random.default_rng(20240717)
    trials = rng.multinomial(n, [p_lost, p_won, 1 - p_lost - p_won], size=3_000)
    rows, times = np.unique(trials[:, :2], axis=0, return_counts=True)
    covered = [drop_upper_bound(int(b), int(c), n, 0.95) >= p_lost - p_won for b, c in rows]
    assert 0.94 <= times[covered].sum() / 3_000 <= 0.98


def test_verdicts() -> None:
    passed = non_inferiority(220, 180, 10_000, 0.01, 0.95)
    assert (passed.verdict, passed.flips, passed.images_needed, passed.failure()) == ("pass", 400, None, None)
    assert passed.drop == pytest.approx(0.004)
    assert passed.explain() == (
        "accuracy drop 0.40 points on 10000 samples, at most 0.73 points at 0.95 confidence; budget 1.00 points: met"
    )
    failed = non_inferiority(300, 100, 5_000, 0.01, 0.95)
    assert failed.verdict == "fail"
    assert failed.lower > 0.01
    assert isinstance(failed.failure(), BudgetMissed)
    assert failed.explain().endswith("budget 1.00 points: missed")


def test_undecided_says_how_many_images_would_decide() -> None:
    verdict = non_inferiority(120, 80, 5_000, 0.01, 0.95)
    assert verdict.verdict == "undecided"
    discordant, drop, z = 0.04, 0.008, NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    assert verdict.images_needed == math.ceil(z**2 * (discordant - drop**2) / (0.01 - drop) ** 2)
    assert verdict.explain().endswith(f"undecided; about {verdict.images_needed} samples would decide")
    assert isinstance(verdict.failure(), Undecided)


def test_images_needed_follows_the_published_table() -> None:
    # 4 % discordant, drop 0.3 points, budget 1 point: 5 046 images
    verdict = non_inferiority(215, 185, 10_000, 0.01, 0.95)
    assert verdict.verdict == "pass"
    small = non_inferiority(43, 37, 2_000, 0.01, 0.95)
    assert (small.verdict, small.images_needed) == ("undecided", 5_046)


def test_images_needed_without_flips_is_what_passes() -> None:
    verdict = non_inferiority(0, 0, 20, 0.02, 0.95)
    assert verdict.verdict == "undecided"
    needed = verdict.images_needed
    assert needed == 133
    assert drop_upper_bound(0, 0, needed, 0.95) <= 0.02 < drop_upper_bound(0, 0, needed - 1, 0.95)


def test_undecided_above_the_budget_promises_nothing() -> None:
    verdict = non_inferiority(13, 2, 500, 0.02, 0.95)
    assert (verdict.verdict, verdict.images_needed) == ("undecided", None)
    assert (
        "the observed drop leaves no room under the budget, so more samples would rather show a miss"
        in verdict.explain()
    )


@given(counts(), st.floats(0, 0.2))
def test_verdict_is_what_the_bounds_say(bcn: tuple[int, int, int], max_drop: float) -> None:
    verdict = non_inferiority(*bcn, max_drop, 0.95)
    assert (verdict.verdict == "pass") == (verdict.upper <= max_drop)
    assert (verdict.verdict == "fail") == (verdict.lower > max_drop)
    if verdict.images_needed is not None:
        assert verdict.images_needed > verdict.images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, 0.01, 0.95), "there are no images to compare"),
        ((5, 6, 10, 0.01, 0.95), "b is 5, c is 6 of n = 10 images"),
        ((-1, 0, 10, 0.01, 0.95), "b is -1"),
        ((1, 0, 10, 1.5, 0.95), "the accuracy budget is 1.5; must be at least 0 and under 1"),
        ((1, 0, 10, -0.1, 0.95), "the accuracy budget is -0.1"),
        ((1, 0, 10, 0.01, 1.0), "the confidence is 1.0; must be at least 0.5 and under 1"),
        ((1, 0, 10, 0.01, 95), "the confidence is 95"),
    ],
)
def test_refusals(arguments: tuple[int, int, int, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        non_inferiority(*arguments)


@pytest.mark.parametrize(
    ("percentile", "confidence", "least"),
    [(90, 0.95, 29), (95, 0.95, 59), (99, 0.95, 299), (99.9, 0.95, 2_995), (99, 0.99, 459), (99.9, 0.99, 4_603)],
)
def test_fewest_samples_of_a_percentile_bound(percentile: float, confidence: float, least: int) -> None:
    assert percentile_upper_bound(range(least - 1), percentile, confidence) is None
    assert percentile_upper_bound(range(least), percentile, confidence) == least - 1


@given(st.integers(1, 800), st.floats(1, 99), st.floats(0.5, 0.999))
def test_percentile_bounds_are_the_binomial_order_statistics(n: int, percentile: float, confidence: float) -> None:
    ranks = np.arange(1, n + 1)
    p = percentile / 100
    enough = ranks[stats.binom.cdf(ranks - 1, n, p) >= confidence + 1e-9]
    upper = percentile_upper_bound(ranks, percentile, confidence)
    just_under = ranks[stats.binom.cdf(ranks - 1, n, p) >= confidence - 1e-9]
    assert upper in {int(enough[0]) if len(enough) else None, int(just_under[0]) if len(just_under) else None}
    lower = percentile_lower_bound(ranks, percentile, confidence)
    if lower is not None:
        assert stats.binom.sf(lower - 1, n, p) >= confidence - 1e-9
        assert upper is None or lower <= upper


def test_percentile_bound_covers() -> None:
    rng = np.random.default_rng(7)
    samples = np.sort(rng.exponential(size=(2_000, 200)), axis=1)
    truth = -math.log(0.1)
    uppers = np.array([percentile_upper_bound(row, 90, 0.95) for row in samples])
    lowers = np.array([percentile_lower_bound(row, 90, 0.95) for row in samples])
    assert 0.94 <= (uppers >= truth).mean() <= 0.985
    assert 0.94 <= (lowers <= truth).mean() <= 0.985


@pytest.mark.parametrize("percentile", [0, 100, -1, 101])
def test_percentile_outside_its_range(percentile: float) -> None:
    with pytest.raises(InputError, match=r"the percentile is .*; must be between 0 and 100"):
        percentile_upper_bound([1.0, 2.0], percentile, 0.95)


def test_percentile_of_nothing() -> None:
    assert percentile_upper_bound([], 90, 0.95) is None
    assert percentile_lower_bound([], 90, 0.95) is None


def test_every_verdict_is_said_in_full() -> None:
    failed = non_inferiority(300, 100, 5_000, 0.01, 0.95)
    assert failed.explain() == (
        f"accuracy drop 4.00 points on 5000 samples, at least {100 * failed.lower:.2f} points at 0.95 confidence; "
        "budget 1.00 points: missed"
    )
    unsure = non_inferiority(120, 80, 5_000, 0.01, 0.95)
    assert unsure.explain() == (
        f"accuracy drop 0.80 points on 5000 samples, between {100 * unsure.lower:.2f} points and "
        f"{100 * unsure.upper:.2f} points (each at 0.95 confidence); budget 1.00 points: undecided; "
        f"about {unsure.images_needed} samples would decide"
    )


def test_a_bound_that_meets_the_budget_exactly_meets_it() -> None:
    lower, upper = drop_lower_bound(30, 10, 500, 0.95), drop_upper_bound(30, 10, 500, 0.95)
    verdicts = [
        non_inferiority(30, 10, 500, budget, 0.95).verdict
        for budget in (upper, math.nextafter(upper, 0), lower, math.nextafter(lower, 0))
    ]
    assert verdicts == ["pass", "undecided", "undecided", "fail"]


@pytest.mark.parametrize(("room", "hopeful"), [(2e-6, True), (5e-7, False), (0.0, False), (-1e-3, False)])
def test_without_room_under_the_budget_no_number_is_promised(room: float, hopeful: bool) -> None:
    verdict = non_inferiority(15, 5, 1_000, 0.01 + room, 0.95)
    assert verdict.verdict == "undecided"
    assert (verdict.images_needed is not None) is hopeful
    assert ("the observed drop leaves no room" in verdict.explain()) is not hopeful


@pytest.mark.parametrize(
    ("b", "c", "n", "max_drop"),
    [
        (0, 0, 20, 0.02),
        (0, 0, 7, 0.3),
        (1, 1, 20, 0.1),
        (1, 0, 10, 0.3),
        (0, 1, 6, 0.2),
        (2, 1, 60, 0.04),
        (0, 3, 9, 0.1),
        (0, 1, 20, 0.05),
    ],
)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_images_needed_is_the_larger_of_two_searches(
    b: int, c: int, n: int, max_drop: float, confidence: float
) -> None:
    """What passes at all, by trying one after the other, and what passes with chance 0.8, by the formula."""
    verdict = non_inferiority(b, c, n, max_drop, confidence)
    if verdict.verdict != "undecided":
        assert verdict.images_needed is None
        return
    sizes = range(n, 100_000)
    least = next(k for k in sizes if drop_upper_bound(b * k / n, c * k / n, k, confidence) <= max_drop)
    z = NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(0.8)
    drop = (b - c) / n
    assert verdict.images_needed == max(math.ceil(z**2 * ((b + c) / n - drop**2) / (max_drop - drop) ** 2), least)


def test_the_ends_of_what_is_asked() -> None:
    assert non_inferiority(0, 0, 10, 0, 0.5).images == 10
    assert drop_upper_bound(3, 3, 10, 0.5) == pytest.approx(0, abs=1e-9)
    assert drop_upper_bound(5, 5, 10, 0.95) < 1  # all of them flipped
    assert drop_upper_bound(0.5, 0.5 + 2e-13, 1, 0.95) <= 1  # scaled counts are rounded
    for arguments in ((0.5, 0.5 + 1e-11, 1), (0, -1, 10), (-0.5, 0, 10), (0, 11, 10)):
        with pytest.raises(InputError, match=r"they count disjoint images, so 0 <= b \+ c <= n"):
            drop_upper_bound(*arguments, 0.95)
    with pytest.raises(InputError, match="no images to compare"):
        drop_upper_bound(0, 0, -1, 0.95)
    with pytest.raises(InputError, match=r"must be at least 0 and under 1 \(0\.02 is two points"):
        non_inferiority(0, 0, 10, 1, 0.95)
    for confidence in (0.49, 1.0):
        with pytest.raises(InputError, match="the confidence is"):
            percentile_lower_bound([1.0], 90, confidence)


@settings(max_examples=40)
@given(st.integers(1, 150), st.floats(1, 99), st.floats(0.5, 0.999))
def test_the_lower_percentile_bound_is_the_largest_that_holds(n: int, percentile: float, confidence: float) -> None:
    ranks = np.arange(1, n + 1)
    holds = [stats.binom.sf(ranks - 1, n, percentile / 100) >= confidence + slack for slack in (1e-9, -1e-9)]
    expected = {int(ranks[good][-1]) if good.any() else None for good in holds}
    assert percentile_lower_bound(ranks, percentile, confidence) in expected
