"""How far the roofline is off on published latencies: as the profiles are, and fitted to all boards but one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import tomllib

from dlx_deploy.targets import LayerCost, Precision, estimate, load_target
from dlx_deploy.targets.roofline import ANCHOR_ERROR, SPREAD

Layers = Callable[[Precision], list[LayerCost]]

FITTED_EFFICIENCY = 0.6  # of the peak at batch 1: what a fit to Ampere and Ada gives (0.62)
LAUNCHES_US = [n / 2 for n in range(2, 61)]
KEPT_IN_L2 = 0.7  # weights that fill no more of it stay there from one query to the next


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published latency of ResNet-50."""

    target: str
    round: str
    p90_ms: float
    generation: str
    l2_mib: float


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table file."""

    schema: int
    anchor: tuple[Anchor, ...]


ANCHORS = msgspec.convert(tomllib.loads((Path(__file__).parent / "anchors.toml").read_text()), Table).anchor


def fitted_ms(anchor: Anchor, layers: Sequence[LayerCost], launch_us: float) -> float:
    """What the roofline says with the efficiency of the fit, weights that stay in L2 left out."""
    profile = load_target(anchor.target).profile
    roof = msgspec.structs.replace(profile.roofline, eff_compute=FITTED_EFFICIENCY, eff_memory=0.8, launch_us=launch_us)
    if sum(layer.weight_bytes for layer in layers) < KEPT_IN_L2 * anchor.l2_mib * 2**20:
        layers = [msgspec.structs.replace(layer, weight_bytes=0) for layer in layers]
    return estimate(layers, msgspec.structs.replace(profile, roofline=roof)).latency_ms


def fitted_launch_us(anchors: Sequence[Anchor], layers: Sequence[LayerCost]) -> float:
    """The launch time by which ``anchors`` of one generation are met best (least sum of relative errors)."""
    bare = {anchor: fitted_ms(anchor, layers, 0.0) for anchor in anchors}

    def error(launch_us: float) -> float:
        added_ms = len(layers) * launch_us / 1e3
        return sum(abs((bare[anchor] + added_ms) / anchor.p90_ms - 1) for anchor in anchors)

    return min(LAUNCHES_US, key=error)


def test_the_profiles_are_off_by_what_is_stated(resnet50_layers: Layers) -> None:
    layers = resnet50_layers("int8")
    errors = []
    for anchor in ANCHORS:
        modelled = estimate(layers, load_target(anchor.target).profile)
        assert modelled.low_ms < anchor.p90_ms < modelled.high_ms, anchor.target
        errors.append(abs(modelled.latency_ms / anchor.p90_ms - 1))
    assert sum(errors) / len(errors) == pytest.approx(ANCHOR_ERROR, abs=0.005)
    assert max(errors) > SPREAD / 2, "a spread that is far too wide says nothing"


def test_a_fit_finds_the_board_that_it_has_not_seen(resnet50_layers: Layers) -> None:
    """Leave one out: a launch time for each of two generations, all else as the profiles have it."""
    layers, errors = resnet50_layers("int8"), {}
    for left in ANCHORS:
        others = [one for one in ANCHORS if one.generation == left.generation and one != left]
        errors[left.target] = abs(fitted_ms(left, layers, fitted_launch_us(others, layers)) / left.p90_ms - 1)
    assert sum(errors.values()) / len(errors) <= 0.15, errors
    assert max(errors.values()) <= 0.4, errors


def test_no_anchor_is_there_twice() -> None:
    assert len({anchor.target for anchor in ANCHORS}) == len(ANCHORS) == 8
