"""Right and wrong answers of samples that come in groups: whole groups are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.runtime.statistics.clustered import by_groups, grouped_drops, grouped_share
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.flips import Flips, judge_flips
from dlx_deploy.runtime.statistics.groups import Group, judge_groups
from dlx_deploy.runtime.statistics.resampled import LEVELS, Bounds, judge_drops

GROUPS = np.repeat(np.arange(60), 10)
RIGHT = np.ones(600, np.bool_)


def lost(rows: np.ndarray) -> np.ndarray:
    right = RIGHT.copy()
    right[rows] = False
    return right


def test_counts_are_summed_by_group_whatever_their_numbers() -> None:
    counts = np.array([[1, 0], [2, 1], [4, 0]], np.int64)
    assert by_groups(counts, np.array([9, -2, 9])).tolist() == [[2, 1], [5, 0]]


def test_losses_of_one_group_say_less_than_as_many_of_all() -> None:
    """Twelve samples lost: two whole groups and a bit, or one each of twelve groups."""
    together, apart = lost(np.arange(12)), lost(np.arange(0, 600, 50))
    wide, narrow = (grouped_drops(RIGHT, right, GROUPS) for right in (together, apart))
    assert (wide.drop, wide.units, wide.noun) == (narrow.drop, 60, "groups")
    assert wide.drop == pytest.approx(0.02)
    assert drop_upper_bound(12, 0, 600, 0.95) < narrow.bounds.at(0.95)[1] < wide.bounds.at(0.95)[1]


def test_the_bound_is_that_of_any_order_of_samples() -> None:
    right, order = lost(np.arange(12)), np.random.default_rng(0).permutation(600)
    assert grouped_drops(RIGHT, right, GROUPS) == grouped_drops(RIGHT, right[order], 7 - GROUPS[order])


def test_equal_answers_of_few_groups_are_undecided_and_say_how_many_groups_decide() -> None:
    drops = grouped_drops(RIGHT, RIGHT, GROUPS)
    seen = judge_drops(drops, "accuracy", 0.02, 0.95)
    assert seen.verdict == "undecided"
    assert "accuracy drop 0.00 points on 60 groups" in seen.explain()
    assert f"about {seen.units_needed} groups would decide" in seen.explain()
    many = np.repeat(np.arange(150), 4)
    assert judge_drops(grouped_drops(RIGHT, RIGHT, many), "accuracy", 0.02, 0.95).verdict == "pass"


def test_the_share_has_bounds_on_both_sides() -> None:
    value, bounds = grouped_share(lost(np.arange(60)), GROUPS)
    low, high = bounds.at(0.95)
    assert low < value == 0.9 < high <= 1


def test_changed_answers_and_classes_are_judged_by_the_bounds_given() -> None:
    bounds = Bounds((0.0,) * len(LEVELS), (0.04,) * len(LEVELS))
    flips = Flips(1, 0, 1, 600)
    assert judge_flips(flips, 0.03, 0.95).verdict == "pass"
    wide = judge_flips(flips, 0.03, 0.95, bounds)
    assert (wide.verdict, wide.upper) == ("undecided", 0.04)
    assert wide.samples_needed is not None
    assert wide.samples_needed > 600
    group = Group("a", 600, 600, 599, 1, 0)
    assert judge_groups([group], [0.03], "classes", 0.95).verdict == "pass"
    held = judge_groups([group] * 60, [0.03] * 60, "classes", 0.95, [bounds] * 60)
    assert (held.verdict, held.groups[0].lower) == ("undecided", -1.0)  # Holm's level is above all that are kept
    assert held.groups[0].samples_needed is not None
