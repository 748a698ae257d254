"""The thresholds keep their promise: windows of the same distribution stay under them, for nearly every reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx_deploy.runtime.watching.reference import DriftReference, parse_reference
from dlx_deploy.stages.support.drift import LEAST_SAMPLES, WINDOWS, drift_file

Rng = np.random.Generator


def samples(rng: Rng, count: int, shift: float = 0.0) -> dict[str, Any]:
    """Two magnitudes that go together, one that hardly varies, and a class."""
    one = rng.normal(shift, 1, count)
    return {
        "input_a": one.astype(np.float32),
        "input_b": (one + rng.normal(0, 0.3, count)).astype(np.float32),
        "input_rare": (rng.random(count) < 0.01).astype(np.float32),
        "output_class": rng.choice(4, count, p=[0.6, 0.3, 0.09, 0.01]),
    }


def reference(features: dict[str, Any]) -> DriftReference:
    data = drift_file(features)
    assert data is not None
    return parse_reference(data, "x")


def drifted(known: DriftReference, features: dict[str, Any], window: int) -> bool:
    at = known.windows.index(window)
    return any(one.distance(features[one.name]) > one.thresholds[at] for one in known.features)


def test_at_most_one_window_in_a_hundred_alarms_falsely() -> None:
    rng, alarms = np.random.default_rng(0), []
    for _ in range(10):
        known = reference(samples(rng, 300))
        alarms += [drifted(known, samples(rng, window), window) for window in WINDOWS for _ in range(20)]
    assert np.mean(alarms) <= 0.01


def test_a_shift_is_found_and_the_longer_the_window_the_smaller_a_shift() -> None:
    rng = np.random.default_rng(1)
    known = reference(samples(rng, 1000))
    for window, shift in zip(WINDOWS, (1.0, 0.5, 0.35), strict=True):
        assert np.mean([drifted(known, samples(rng, window, shift), window) for _ in range(10)]) >= 0.9


def test_a_feature_that_never_varied_may_vary_once_and_not_always() -> None:
    known = reference({"input_x": np.zeros(300, np.float32)})
    (one,) = known.features
    once, often = np.zeros(256, np.float32), np.zeros(256, np.float32)
    once[0], often[:64] = 1, 1
    assert one.distance(once) <= one.thresholds[1] < one.distance(often)


def test_a_class_that_the_build_never_saw_is_one_of_the_others() -> None:
    known = reference({"output_class": np.arange(300) % 2})
    (one,) = known.features
    assert one.counts == (150, 150, 0)
    assert one.distance(np.full(64, 9)) > one.thresholds[0]


def test_the_same_samples_give_the_same_bytes_and_too_few_give_none() -> None:
    features = samples(np.random.default_rng(2), 100)
    assert drift_file(features) == drift_file(dict(reversed(features.items())))
    few = {name: values[: LEAST_SAMPLES - 1] for name, values in features.items()}
    assert drift_file(few) is None
    assert drift_file({}) is None


def test_a_feature_that_is_no_number_or_thousands_of_classes_is_left_out() -> None:
    features = {"input_a": np.arange(100, dtype=np.float32), "output_b": np.full(100, np.nan, np.float32)}
    features["output_class"] = np.arange(100) * 210
    assert [one.name for one in reference(features).features] == ["input_a"]
    assert drift_file({"output_b": features["output_b"]}) is None
