"""A budget for each of several groups: passes need no correction, misses are corrected for their number."""

from __future__ import annotations

import json
import math

import pytest

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.drops import drop_lower_bound
from dlx_deploy.runtime.statistics.groups import Group, describe_worst, judge_groups, table_of


def group(name: str, samples: int, lost: int = 0, gained: int = 0) -> Group:
    return Group(name, samples, samples - gained, samples - lost, lost, gained)


def test_all_groups_keep_to_their_budgets() -> None:
    seen = judge_groups([group("a", 100), group("b", 100, 1)], [0.1, 0.2], "classes", 0.95)
    assert (seen.verdict, seen.failure()) == ("pass", None)
    assert [one.verdict for one in seen.groups] == ["pass", "pass"]
    assert seen.explain().startswith("all 2 classes keep to their budgets at 0.95 confidence; the nearest: 'a' 0.00")


def test_a_pass_takes_no_correction_for_the_number_of_groups() -> None:
    """A pass is wrong only where the very group that is over its budget is wrongly passed."""
    alone = judge_groups([group("a", 60)], [0.05], "classes", 0.95)
    many = judge_groups([group(str(k), 60) for k in range(100)], [0.05] * 100, "classes", 0.95)
    assert (alone.verdict, many.verdict) == ("pass", "pass")


def test_a_miss_is_corrected_for_the_number_of_groups() -> None:
    """Seven of 50 lost are clearly more than 5 points for one class, and not for one of a hundred."""
    lost = group("bad", 50, 8)
    assert drop_lower_bound(8, 0, 50, 0.95) > 0.05
    assert judge_groups([lost], [0.05], "classes", 0.95).verdict == "fail"
    several = [lost, *(group(str(k), 200) for k in range(99))]
    assert drop_lower_bound(8, 0, 50, 0.9995) < 0.05
    seen = judge_groups(several, [0.05] * 100, "classes", 0.95)
    assert seen.verdict == "undecided"
    assert isinstance(seen.failure(), Undecided)
    assert "1 of 100 classes are undecided at 0.95 confidence: 'bad' 16.00 points (8 lost, 0 gained of 50)" in str(
        seen.failure()
    )


def test_holm_s_procedure_goes_on_with_those_that_are_left() -> None:
    """Of two groups the worse is over at half the level, and then the other at the whole."""
    first, second = group("first", 100, 40), group("second", 100, 11)
    assert drop_lower_bound(11, 0, 100, 0.95) > 0.065 > drop_lower_bound(11, 0, 100, 0.975)
    seen = judge_groups([second, first], [0.065, 0.065], "classes", 0.95)
    assert [(one.group.name, one.verdict) for one in seen.groups] == [("first", "fail"), ("second", "fail")]
    assert isinstance(seen.failure(), BudgetMissed)
    assert "2 of 2 classes drop too far at 0.95 confidence (Holm, over 2): 'first' 40.00 points" in seen.explain()
    calm = judge_groups([second, group("calm", 1000)], [0.065, 0.065], "classes", 0.95)
    assert [one.verdict for one in calm.groups] == ["undecided", "pass"]


def test_the_samples_of_a_group_that_are_missing_are_said() -> None:
    seen = judge_groups([group("rare", 20), group("none", 0), group("large", 500)], [0.05] * 3, "classes", 0.95)
    needed = {one.group.name: one.samples_needed for one in seen.groups}
    assert needed == {"rare": 59, "none": 59, "large": None}
    text = seen.explain()
    assert "'rare' 0.00 points (0 lost, 0 gained of 20), at most 13.91 points: about 39 more would decide" in text
    assert "'none' 0.00 points (0 lost, 0 gained of 0), at most 100.00 points: about 59 more would decide" in text
    assert judge_groups([group("rare", 59)], [0.05], "classes", 0.95).verdict == "pass"
    near = judge_groups([group("near", 100, 6)], [0.05], "classes", 0.95)
    assert (near.verdict, near.groups[0].samples_needed) == ("undecided", None)
    assert "too near its budget for more samples to help" in near.explain()


@pytest.mark.parametrize(("samples", "limit"), [(25, 0.1), (52, 0.05), (135, 0.02), (12, 0.2)])
def test_where_nothing_is_gained_a_false_pass_is_as_rare_as_said(samples: int, limit: float) -> None:
    """Tango's bound passes 7 % of these falsely: the chance of so few losses where the drop is the limit itself."""
    passes = [b for b in range(samples) if judge_groups([group("a", samples, b)], [limit], "x", 0.95).verdict == "pass"]
    assert sum(math.comb(samples, b) * limit**b * (1 - limit) ** (samples - b) for b in passes) <= 0.05


def test_tables_and_texts_are_bounded() -> None:
    groups = [group(f"class {k:04}", 10, k % 3) for k in range(1200)]
    table = table_of(groups)
    assert (len(table["groups"]), table["left_out"]) == (1000, 200)  # type: ignore[arg-type]
    judged = judge_groups(groups, [0.5] * 1200, "classes", 0.95)
    assert len(json.dumps(judged.to_dict())) < 400_000
    assert judged.to_dict()["left_out"] == 200
    assert judged.explain().endswith(" more")
    text = describe_worst(groups, "classes")
    assert text is not None
    assert text.startswith("classes that drop: 'class 0002' 20.00 points (2 lost, 0 gained of 10); ")
    assert text.endswith("; and 797 more; of 1200")
    assert describe_worst([group("a", 10)], "classes") is None
    assert "\x1b" not in (describe_worst([group("\x1b[31m", 10, 1)], "classes") or "")


def test_budgets_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"the budget of classes is 0; must be over 0 and under 1"):
        judge_groups([group("a", 10)], [0], "classes", 0.95)
    with pytest.raises(InputError, match=r"there are no classes to judge"):
        judge_groups([], [], "classes", 0.95)


def test_the_cause_of_a_verdict_has_it() -> None:
    """A small group may drop further than the one that decides."""
    small, large = group("small", 3, 2), group("large", 2000, 400)
    seen = judge_groups([small, large], [0.05] * 2, "classes", 0.95)
    assert (seen.verdict, seen.cause.group.name) == ("fail", "large")
    assert seen.cause.lower > 0.05
    seen = judge_groups([group("many", 10_000, 100), group("few", 30)], [0.02] * 2, "classes", 0.95)
    assert (seen.verdict, seen.cause.group.name) == ("undecided", "few")
    assert seen.cause.upper > 0.02
