from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.nn.pruning.choice import remedy
from dlx_deploy.nn.pruning.order import Goal
from dlx_deploy.nn.pruning.search import TOLERANCE, Cost, Part, fewest, mildest


def part(units: int, step: int, seed: int = 0) -> Part:
    return Part(np.random.default_rng(seed).uniform(0.5, 1, units), step)


def linear(weights: Sequence[float]) -> Cost:
    """Operations that each unit of a part costs, added up."""
    return lambda kept: int(sum(w * k for w, k in zip(weights, kept, strict=True)))


def test_the_weakest_go_first_in_order_of_their_strength() -> None:
    assert Part(np.array([3.0, 1.0, 2.0, 1.0]), 1).order.tolist() == [1, 3, 2, 0]
    assert Part(np.ones(20), 8).counts() == [16, 8]
    assert Part(np.ones(16), 8).counts() == [8]
    assert Part(np.ones(8), 8).counts() == []
    assert fewest([part(20, 8), part(8, 8)]) == [8, 8]


def test_alike_parts_lose_one_after_another_the_one_with_least_strength_first() -> None:
    weak = Part(np.array([1e-3] * 8 + [1.0] * 8), 8)
    parts = [part(16, 8), weak, part(16, 8, 1)]
    assert mildest(parts, linear([1, 1, 1]), 48, 0.15) == [16, 8, 16]
    kept = mildest(parts, linear([1, 1, 1]), 48, 0.33)
    assert kept[1] == 8
    assert sum(kept) == 32


def test_parts_lose_the_same_share() -> None:
    assert mildest([part(64, 8), part(128, 8)], linear([1, 1]), 192, 0.25) == [48, 96]


def test_steps_that_a_larger_one_makes_needless_are_taken_back() -> None:
    """The last step of the second part removes 0.5 by itself: what went before was not needed."""
    parts = [part(64, 8), part(16, 8)]
    assert mildest(parts, linear([1, 60]), 64 + 960, 0.3) == [64, 8]


def test_nothing_goes_where_nothing_is_asked() -> None:
    """Nor does what costs nothing."""
    assert mildest([part(16, 8), part(20, 1)], lambda _: 100, 100, 0.0) == [16, 20]


def test_just_short_is_better_than_far_too_much() -> None:
    parts = [part(100, 1), part(16, 8)]
    macs = linear([1, 20])
    kept = mildest(parts, macs, 420, 0.06)
    assert abs(1 - macs(kept) / 420 - 0.06) <= TOLERANCE


@given(
    st.lists(st.tuples(st.integers(1, 70), st.sampled_from([1, 2, 8]), st.integers(1, 50)), min_size=1, max_size=6),
    st.floats(0, 0.95),
)
def test_what_is_asked_is_reached_wherever_it_can_be(shapes: list[tuple[int, int, int]], asked: float) -> None:
    parts = [part(units, step, i) for i, (units, step, _) in enumerate(shapes)]
    macs = linear([weight for _, _, weight in shapes])
    before = macs([units for units, _, _ in shapes])
    kept = mildest(parts, macs, before, asked)
    for (units, step, _), count in zip(shapes, kept, strict=True):
        assert count == units or (0 < count < units and count % step == 0)
    most = 1 - macs(fewest(parts)) / before
    reached = 1 - macs(kept) / before
    assert reached >= min(asked - TOLERANCE, most) - 1e-9


LOWER = "lower prune.reduce_macs to 0.15, or "


@pytest.mark.parametrize(
    ("reach", "text"),
    [
        ({(8, True): 0.15, (8, False): 0.5, (1, True): 0.6}, f"{LOWER}set prune.keep_trunk = false (at most 0.500)"),
        ({(8, True): 0.15, (8, False): 0.15, (1, True): 0.6}, f"{LOWER}set prune.round_to = 1 (at most 0.600)"),
        (
            {(8, True): 0.0, (8, False): 0.0, (1, True): 0.1, (1, False): 0.12},
            "set prune.round_to = 1 and prune.keep_trunk = false (at most 0.120)",
        ),
        ({(8, True): 0.1239}, "lower prune.reduce_macs to 0.123"),
        ({(8, True): 0.0}, "set prune.enabled = false to ship the network as it is"),
    ],
)
def test_advice_is_what_helps(reach: dict[tuple[int, bool], float], text: str) -> None:
    assert remedy(Goal(asked=0.3), (8, True), reach, 1.0) == text


def test_parts_of_a_family_lose_what_is_weakest_in_any_of_them() -> None:
    strong, weak = Part(np.arange(17.0, 33), 4, "alike"), Part(np.arange(1.0, 17), 4, "alike")
    cost = linear([1, 1])
    assert mildest([strong, weak], cost, 32, 0.25) == [16, 8]
    assert mildest([strong, weak], cost, 32, 0.5) == [12, 4]  # of each part something stays
    alone = [Part(part.strength, 4) for part in (strong, weak)]
    assert mildest(alone, cost, 32, 0.25) == [12, 12]
    assert mildest([strong, weak, Part(np.ones(16), 4)], linear([1, 1, 1]), 48, 0.25) == [16, 8, 12]


def test_steps_of_equal_strength_are_taken_one_after_the_other() -> None:
    """Sums of equal numbers are not equal to the last bit; a part must not give back what it lost."""
    parts = [Part(np.full(units, 0.1), 8, "alike") for units in (20, 20, 13)]
    for share in np.linspace(0.05, 0.95, 19):
        kept = mildest(parts, linear([1, 1, 1]), 53, float(share))
        assert all(count in (20, 13, 16, 8) for count in kept)
        assert 1 - sum(kept) / 53 >= min(share, 1 - 24 / 53) - TOLERANCE


def test_a_cost_that_is_slow_to_tell_is_asked_seldom() -> None:
    asked = []
    parts = [part(512, 1), part(64, 8)]

    def cost(kept: Sequence[int]) -> float:
        asked.append(kept)
        return linear([1, 20])(kept)

    kept = mildest(parts, cost, 512 + 1280, 0.3, near=0.0)
    assert len(asked) <= 10
    assert 0.3 <= 1 - cost(kept) / 1792 < 0.4


@pytest.mark.parametrize(
    ("goal", "before", "reach", "nearest", "most", "told"),
    [
        (
            Goal("max_latency_ms", 1.0, "estimate"),
            8.0,
            "at least 3.33 of 8 ms stay (estimate)",
            "raise prune.max_latency_ms to 3.334",
            "at least 3.33 ms",
            "4 of 8 ms are left, at most 1 asked (prune.max_latency_ms); estimate",
        ),
        (
            Goal("reduce_latency", 0.7, "measured"),
            8.0,
            "at most 0.583 of the latency (measured) can be removed",
            "lower prune.reduce_latency to 0.583",
            "at most 0.583",
            "0.500 of the latency removed, 0.7 asked (prune.reduce_latency); measured",
        ),
    ],
)
def test_a_latency_is_spoken_of_as_one(
    goal: Goal, before: float, reach: str, nearest: str, most: str, told: str
) -> None:
    share = 1 - 3.3333 / 8
    assert goal.reach(share, before) == reach
    assert goal.nearest(share, before) == nearest
    assert goal.most(share, before) == most
    assert goal.told(before, 4.0) == told
    assert (goal.share(before), goal.near) == ({"max_latency_ms": 0.875}.get(goal.key, 0.7), 0.0)


def test_rounds_take_the_same_share_of_what_they_find() -> None:
    goal = Goal(asked=0.51)
    first, second = goal.of_round(1, 2, 0.0).asked, goal.of_round(2, 2, 0.3).asked
    assert first == pytest.approx(0.3)
    assert second == pytest.approx(0.3)
    assert goal.of_round(2, 2, 0.4).asked == pytest.approx(1 - 0.49 / 0.6)
    assert goal.of_round(2, 2, 0.6).asked == 0.0
