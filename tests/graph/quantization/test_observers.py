"""Range methods; ONNX Runtime's calibrators are the measure."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlx_deploy.graph.quantization.histogram import MOST_BINS, Histogram
from dlx_deploy.graph.quantization.observers import METHODS, MOST_ENTROPY_BINS, Entropy, Mse, Observer, Percentile

from ...arrays import activation_ranges
from ...onnx_fixtures import images, residual_net

TENSORS = ("x", "relu1", "conv2", "relu2", "conv3", "relu3", "pooled", "flat")


def growing() -> NDArray[np.uint8]:
    """70 images, of which the first 33 have little contrast: the later ones go beyond what was seen."""
    pictures = images(70)
    pictures[:33] = 100 + pictures[:33] // 8
    return pictures


@contextlib.contextmanager
def batch_by_batch(pictures: NDArray[np.uint8]) -> Iterator[Iterator[Mapping[str, NDArray[np.uint8]]]]:
    yield ({"images": pictures[start : start + 32]} for start in range(0, len(pictures), 32))


def theirs(method: str, symmetric: bool, folder: Path) -> dict[str, tuple[float, float]]:
    from onnxruntime.quantization import calibrate

    kinds = {
        "minmax": (calibrate.MinMaxCalibrater, {}),
        "percentile": (calibrate.PercentileCalibrater, {"percentile": 99.99}),
        "entropy": (calibrate.EntropyCalibrater, {}),
    }
    kind, options = kinds[method]
    path = folder / "net.onnx"
    path.write_bytes(residual_net().SerializeToString())
    with contextlib.redirect_stdout(io.StringIO()), batch_by_batch(growing()) as parts:
        calibrator = kind(path, augmented_model_path=str(folder / "more.onnx"), symmetric=symmetric, **options)
        calibrator.augment_graph()
        calibrator.create_inference_session()
        for part in parts:
            left = [part]
            reader = type("Reader", (), {"get_next": lambda self, left=left: left.pop() if left else None})()
            calibrator.collect_data(reader)
        ranges = calibrator.compute_data()
    return {name: tuple(float(np.ravel(v)[0]) for v in ranges[name].range_value) for name in TENSORS}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("method", "tolerance"), [("minmax", 0.0), ("percentile", 1e-5), ("entropy", 1e-5)])
def test_ranges_are_those_of_onnxruntime(method: str, tolerance: float, symmetric: bool, tmp_path: Path) -> None:
    ours = activation_ranges(residual_net(), growing(), TENSORS, method, symmetric)
    for name, (low, high) in theirs(method, symmetric, tmp_path).items():
        if symmetric and method == "minmax":  # theirs are centred, which is the scheme's business here
            assert (low, high) == (-max(map(abs, ours[name])), max(map(abs, ours[name])))
        else:
            assert ours[name] == pytest.approx((low, high), rel=tolerance, abs=0), name


def fed(observer: Observer, *parts: NDArray[np.float32]) -> tuple[float, float]:
    for part in parts:
        observer.update(part, part.min(), part.max())
    return observer.bounds()


VALUES = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30).map(lambda v: np.array(v, np.float32)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from(sorted(METHODS)), st.booleans())
def test_no_range_is_wider_than_what_was_seen(parts: list[NDArray[np.float32]], method: str, symmetric: bool) -> None:
    everything = np.concatenate(parts)
    low, high = fed(METHODS[method](symmetric=symmetric), *parts)
    if method == "minmax":
        assert (low, high) == (everything.min(), everything.max())
    assert high <= everything.max()
    assert low >= everything.min()


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_a_histogram_loses_no_value(parts: list[NDArray[np.float32]], magnitudes: bool) -> None:
    histogram = Histogram(64, magnitudes)
    for part in parts:
        histogram.update(part, part.min(), part.max())
        assert len(histogram.counts) == len(histogram.edges) - 1 <= MOST_BINS
    lost = sum(map(len, parts)) - histogram.counts.sum()
    outside = np.abs(np.concatenate(parts)) < histogram.edges[0] if magnitudes else np.zeros(0)
    assert 0 <= lost <= outside.sum() + len(parts) * magnitudes  # float32 may end just short of a batch's largest


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_first_batch_of_nearly_nothing_does_not_take_all_memory(symmetric: bool) -> None:
    """At the width of its bins, the second batch would need 10**13 of them."""
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    low, high = fed(Percentile(symmetric=symmetric), values[:100] * 1e-10, values)
    assert high == pytest.approx(np.percentile(np.abs(values), 99.99), rel=0.05)
    assert low == pytest.approx(-high, rel=0.1)


def test_entropy_clips_what_is_rare_and_far_away() -> None:
    """Once its histogram has grown beyond the levels that it compares with."""
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    far = np.append(values, np.float32(40))
    assert fed(Entropy(symmetric=True), values, far)[1] < 20
    assert fed(METHODS["minmax"](symmetric=True), values, far)[1] == 40


def test_entropy_compares_a_bounded_number_of_ranges() -> None:
    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    observer = Entropy(symmetric=True)
    low, high = fed(observer, values[:100] * np.float32(1e-10), values)
    assert len(observer._histogram.counts) <= MOST_ENTROPY_BINS
    assert values.min() <= low < -1 < 1 < high <= values.max()


def squared_error(values: NDArray[np.float32], low: float, high: float, levels: int) -> float:
    """What ``levels`` + 1 integers between the ends make of ``values``."""
    scale = (high - low) / levels
    zero = np.rint(-low / scale)
    nearest = (np.clip(np.rint(values / scale) + zero, 0, levels) - zero) * scale
    return float(np.square(values - nearest).mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", ["heavy", "positive", "uniform", "shifted"])
def test_mse_is_as_good_as_the_best_of_many_ranges(shape: str, symmetric: bool) -> None:
    random = np.random.default_rng(0)
    heavy = random.standard_t(3, 20_000).astype(np.float32)
    values = {
        "heavy": heavy,
        "positive": np.maximum(heavy, 0),
        "uniform": random.uniform(-1, 1, 20_000).astype(np.float32),
        "shifted": heavy + np.float32(30),
    }[shape]
    low, high = fed(Mse(symmetric=symmetric), values[:5_000], values[5_000:])
    whole = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        ends = [(-reach, reach) for reach in np.linspace(0.02, 1, 200) * max(-whole[0], whole[1])]
        low, high, levels = -max(-low, high), max(-low, high), 254
    else:
        shares = np.linspace(0.02, 1, 25)
        ends = [(a * whole[0], b * whole[1]) for a in shares for b in shares]
        levels = 255
    best = min(squared_error(values, *pair, levels) for pair in ends if pair[1] > pair[0])
    assert squared_error(values, min(low, 0.0), max(high, 0.0), levels) <= 1.1 * best


def test_mse_of_nothing_but_zeros_is_zero() -> None:
    for symmetric in (False, True):
        assert fed(Mse(symmetric=symmetric), np.zeros(9, np.float32)) == (0.0, 0.0)


@pytest.mark.parametrize("high", [1e-34, 1.0, 1e37])
def test_quick_counts_are_those_of_numpy_but_at_edges(high: float) -> None:
    values = (np.random.default_rng(0).uniform(-1, 1, 10_000) * high).astype(np.float32)
    low, reach = values.min(), values.max()
    usual, quick = Histogram(64, magnitudes=False), Histogram(64, magnitudes=False, quick=True)
    for histogram in (usual, quick):
        histogram.update(values[:100], values[:100].min(), values[:100].max())
        histogram.update(values, low, reach)
    assert quick.counts.sum() == usual.counts.sum() == 10_100
    assert np.abs(quick.counts - usual.counts).max() <= 2
    np.testing.assert_allclose(quick.edges, usual.edges, rtol=1e-5)


def test_mse_of_values_as_large_as_there_are() -> None:
    assert fed(Mse(symmetric=True), np.asarray([3e38, -3e38, 1e38], np.float32)) == pytest.approx((-3e38, 3e38))
