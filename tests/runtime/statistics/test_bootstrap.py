from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.bootstrap import resample_drops, resample_value
from dlx_deploy.runtime.statistics.resampled import (
    LEVELS,
    Bounds,
    Drawn,
    Drops,
    DropVerdict,
    judge_drops,
    judge_value,
    units_that_agree,
)

WORST = (np.array([100, 0]), np.array([0, 100]))


def share(sums: np.ndarray) -> np.ndarray:
    """Right of all, a metric that is a mean over pixels."""
    return sums[:, 0] / sums.sum(axis=1)


def counts(rights: Any) -> np.ndarray:
    rights = np.asarray(rights)
    return np.stack([rights, 100 - rights], axis=1)


def verdict(teacher: Any, package: Any, max_drop: float = 0.02, confidence: float = 0.95) -> DropVerdict:
    drops = resample_drops((counts(teacher), counts(package)), WORST, share)
    return judge_drops(drops, "share", max_drop, confidence)


def test_models_that_agree_pass_only_where_there_are_enough_units() -> None:
    """The rule of three: what was not seen in n units is at most 3 / n of them, at 95 %."""
    few, many = verdict([90] * 50, [90] * 50), verdict([90] * 400, [90] * 400)
    assert (few.verdict, many.verdict, few.drop) == ("undecided", "pass", 0)
    assert few.upper == pytest.approx(3 / 51, abs=0.005)
    assert few.units_needed == pytest.approx(50 * (few.upper / 0.02) ** 2, abs=1)
    assert isinstance(few.failure(), Undecided)
    assert many.failure() is None


def test_a_clear_drop_fails() -> None:
    found = verdict([90] * 200, [80] * 200)
    assert (found.verdict, found.drop) == ("fail", pytest.approx(0.1))
    assert isinstance(found.failure(), BudgetMissed)
    assert "share drop 10.00 points on 200 samples, at least" in found.explain()
    assert "budget 2.00 points: missed" in found.explain()


def test_what_is_hard_for_both_counts_for_neither() -> None:
    """Paired: images from 20 to 100 % right, and the package always one point worse."""
    rng = np.random.default_rng(0)
    teacher = rng.integers(20, 100, 500)
    paired = verdict(teacher, teacher - 1, 0.03)
    assert (paired.verdict, paired.upper - paired.drop < 0.01) == ("pass", True)
    shuffled = verdict(teacher, rng.permutation(teacher - 1), 0.03)
    assert shuffled.upper - shuffled.drop > 2 * (paired.upper - paired.drop)


def test_the_bound_covers() -> None:
    """Of 60 packages whose true drop is the budget, no more than 5 % pass, but for chance."""
    rng, passed, true_drop = np.random.default_rng(1), 0, 0.05
    for _ in range(60):
        teacher = rng.binomial(100, rng.beta(8, 2, 120))
        package = np.clip(teacher - rng.binomial(100, true_drop, 120), 0, 100)
        drop = float((teacher - package).mean()) / 100
        passed += verdict(teacher, package, true_drop).verdict == "pass"
        assert abs(drop - true_drop) < 0.02
    assert passed <= 7


def test_the_same_units_give_the_same_verdict() -> None:
    assert verdict([90, 80, 70], [80, 80, 60]) == verdict([90, 80, 70], [80, 80, 60])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "there are no samples to compare"),
        (([1], [1], 1.0), "the budget is 1.0; must be at least 0 and under 1"),
        (([1], [1], 0.1, 0.2), r"the confidence is 0\.2; must be 0\.5 to 0\.999, what resampling tells"),
    ],
)
def test_what_cannot_be_judged(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        verdict(*arguments)


def test_bounds_are_kept_at_fixed_confidences() -> None:
    """What a build writes down is judged again without a resampling: at 0.953 by the bound at 0.96 or tighter."""
    assert list(LEVELS) == sorted(set(LEVELS))
    assert LEVELS[-1] == 0.999
    drops = resample_drops((counts([90] * 30 + [40] * 30), counts([88] * 30 + [44] * 30)), WORST, share)
    again = Drops(drops.teacher, drops.package, drops.units, Bounds(drops.bounds.lowers, drops.bounds.uppers))
    assert judge_drops(again, "share", 0.02, 0.95) == judge_drops(drops, "share", 0.02, 0.95)
    lowers, uppers = drops.bounds.lowers, drops.bounds.uppers
    assert (sorted(uppers), sorted(lowers, reverse=True)) == (list(uppers), list(lowers))
    assert drops.bounds.at(0.9525) == drops.bounds.at(0.953) != drops.bounds.at(0.95)
    assert lowers[0] < drops.drop < uppers[0]


def test_how_many_units_agreement_takes() -> None:
    """What the table of the Poisson distribution says is what resampling then shows."""
    assert units_that_agree(0.02, 0.95, 1) == 150  # the rule of three
    assert units_that_agree(0.0, 0.95, 1) is None
    for n, passes in ((140, False), (165, True)):
        assert (verdict([100] * n, [100] * n).verdict == "pass") is passes


def test_a_floor_is_shown_by_a_lower_bound() -> None:
    rights = counts(np.random.default_rng(3).binomial(100, 0.9, 200))
    value, bounds = resample_value(rights, WORST, share)
    assert value == pytest.approx(0.9, abs=0.01)
    verdicts = [judge_value(value, bounds, Drawn(200), "share", floor, 0.95) for floor in (0.8, value, 0.96)]
    assert [seen.verdict for seen in verdicts] == ["pass", "undecided", "fail"]
    assert [type(seen.failure()) for seen in verdicts] == [type(None), Undecided, BudgetMissed]
    assert "share is 9" in verdicts[0].explain()
    assert "floor 80.00 %: met" in verdicts[0].explain()
    assert "floor 96.00 %: missed" in verdicts[2].explain()
    with pytest.raises(InputError, match=r"the floor is 1\.0; must be at least 0 and under 1"):
        judge_value(value, bounds, Drawn(200), "share", 1.0, 0.95)
    with pytest.raises(InputError, match="there are no samples"):
        resample_value(counts([]), WORST, share)


def test_bounds_of_a_value_cover() -> None:
    """Of 60 samples of units, the true share is above the upper 95 % bound in no more than chance allows."""
    rng, above, below = np.random.default_rng(4), 0, 0
    for _ in range(60):
        rights = counts(rng.binomial(100, rng.beta(8, 2, 80)))
        lower, upper = resample_value(rights, WORST, share)[1].at(0.95)
        above, below = above + (upper < 0.8), below + (lower > 0.8)
    assert max(above, below) <= 7


def test_the_order_of_units_does_not_count() -> None:
    """A build has shuffled the images that a device lists by name."""
    rng = np.random.default_rng(5)
    teacher, package = counts(rng.integers(60, 100, 40)), counts(rng.integers(50, 100, 40))
    order = rng.permutation(40)
    seen = resample_drops((teacher, package), WORST, share)
    assert resample_drops((teacher[order], package[order]), WORST, share) == seen
    assert resample_drops((teacher, package[order]), WORST, share).bounds != seen.bounds
    assert resample_value(package, WORST, share) == resample_value(package[order], WORST, share)
