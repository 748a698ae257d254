from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization import ranges

from ...arrays import activation_ranges, samples
from ...onnx_fixtures import Net, images, residual_net

METHODS = ["minmax", "percentile", "entropy"]


def true_range(name: str, pictures: np.ndarray) -> tuple[float, float]:
    import onnxruntime

    model = residual_net()
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([name], {"images": pictures})[0]
    return float(values.min()), float(values.max())


def test_minmax_is_the_range_that_occurs() -> None:
    pictures = images(70)  # 32 + 32 + 6: the last batch is smaller
    ranges = activation_ranges(residual_net(), pictures, ["conv2", "relu1"], "minmax", symmetric=False)
    assert set(ranges) == {"conv2", "relu1"}
    for name, bounds in ranges.items():
        assert bounds == pytest.approx(true_range(name, pictures), rel=1e-5)


def with_an_outlier(where: int) -> np.ndarray:
    """25,600 pixels about 128, and one of 0, in image ``where``: ``x`` is -1 there, else above -0.25."""
    values = np.random.default_rng(0).normal(128, 6, (400, 8, 8, 1)).clip(100, 156)
    values[where, 0, 0] = 0
    return values.astype(np.uint8)


@pytest.mark.parametrize(("method", "where"), [("percentile", 0), ("percentile", -1), ("entropy", -1)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_an_outlier_is_cut(symmetric: bool, method: str, where: int) -> None:
    whole, cut = (
        activation_ranges(residual_net(), with_an_outlier(where), ["x"], kind, symmetric)["x"][0]
        for kind in ("minmax", method)
    )
    assert whole == -1.0
    assert -0.25 < cut < -0.05


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_percentile_is_four_nines(symmetric: bool) -> None:
    """Of 32,768 pixels 1 is 0 (less than a hundredth of a per cent: cut), 8 are 64 (more: kept), the rest near 128."""
    pixels = np.random.default_rng(0).normal(128, 6, 512 * 64).clip(100, 156).astype(np.uint8)
    pixels[0], pixels[1:9] = 0, 64
    ranges = activation_ranges(residual_net(), pixels.reshape(512, 8, 8, 1), ["x"], "percentile", symmetric)
    assert ranges["x"][0] == pytest.approx(64 / 128 - 1, abs=0.01)


def test_entropy_stays_within_the_range_that_occurs() -> None:
    low, high = true_range("conv2", images(70))
    ranges = activation_ranges(residual_net(), images(70), ["conv2"], "entropy", symmetric=False)["conv2"]
    assert low - 1e-5 <= ranges[0] < low / 4
    assert high / 4 < ranges[1] <= high + 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_the_same_each_time(method: str) -> None:
    first, second = (activation_ranges(residual_net(), images(33), ["relu3", "x"], method, True) for _ in "ab")
    assert first == second


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_batch_is_served(method: str) -> None:
    fixed = activation_ranges(residual_net(batch=8), images(12), ["conv2"], method, symmetric=False)
    assert fixed["conv2"][0] < 0 < fixed["conv2"][1]
    if method == "minmax":
        assert fixed["conv2"] == pytest.approx(true_range("conv2", images(12)), rel=1e-5)


def test_no_output_and_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    activation_ranges(residual_net(), images(8), ["conv2"], "percentile", symmetric=False)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_tensor_that_is_always_zero() -> None:
    model = residual_net()
    for name in ("conv2.weight", "conv2.bias"):
        zeros = np.zeros_like(Index(model).array(name))
        Index(model).initializers[name].CopyFrom(numpy_helper.from_array(zeros, name))
    for method in METHODS:
        assert activation_ranges(model, images(8), ["relu2"], method, symmetric=True)["relu2"] == (0.0, 0.0)


@pytest.mark.filterwarnings("ignore:All-NaN axis")
def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(ConfigError, match="0 calibration images for 1 tensors; rule: at least one"):
        activation_ranges(residual_net(), images(0), ["conv2"], "minmax", symmetric=False)
    with pytest.raises(StageFailed, match="the graph computes no tensor 'conv9'"):
        activation_ranges(residual_net(), images(4), ["conv9"], "minmax", symmetric=False)
    model = residual_net()
    nans = np.full((8, 8, 3, 3), np.nan, np.float32)
    Index(model).initializers["conv2.weight"].CopyFrom(numpy_helper.from_array(nans, "conv2.weight"))
    with pytest.raises(StageFailed, match=r"^'conv2/Conv' \(Conv\) gives nan to nan for calibration input 0, the fir"):
        activation_ranges(model, images(4), ["conv2"], "minmax", symmetric=False)


def test_a_tensor_with_one_infinite_end_cannot_be_calibrated() -> None:
    net = Net()
    net.constant("much", np.array(1e3, np.float32))
    powers = net.add("powers", "Exp", net.add("large", "Mul", net.planes(), "much"))
    with pytest.raises(StageFailed, match=r"^'powers/Exp' \(Exp\) gives .* to inf for calibration input \d"):
        activation_ranges(net.head(powers, 1), images(4), ["powers"], "minmax", symmetric=False)


@pytest.mark.parametrize("batch", ["batch", 4])
def test_what_is_not_finite_is_named_by_its_first_node_and_input(batch: str | int) -> None:
    net = Net(batch=batch)
    net.constant("much", np.array(-200, np.float32))  # Exp(200) is infinite, and only dark pixels come to it
    net.add("late", "Sqrt", net.add("powers", "Exp", net.add("large", "Mul", net.planes(), "much")))
    bright = np.full((12, 8, 8, 1), 255, np.uint8)
    bright[9, 3, 3] = 0
    number = 9 if batch == "batch" else 8  # of a block of four the first is named
    message = rf"^'powers/Exp' \(Exp\) gives 0\.0 to inf for calibration input {number}, the first node of the network"
    model = net.head("late", 1)
    for method in ("minmax", "percentile"):
        with pytest.raises(
            StageFailed, match=rf"{message} .*; look at that input, or train with a lower learning rate"
        ):
            activation_ranges(model, bright, ["late"], method, symmetric=False)


def test_large_tensors_are_looked_at_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """``conv1`` and ``relu1`` of an image are 2 KiB each; those of a batch together are never more than the memory."""
    sizes: list[int] = []

    def seen(values: np.ndarray, observers: object) -> bool:
        sizes.append(values.nbytes)
        return True

    tensors, pictures = ["conv1", "relu1"], images(70)
    whole = activation_ranges(residual_net(), pictures, tensors, "minmax", symmetric=False)
    monkeypatch.setattr(ranges, "MEMORY_BYTES", 5 * 4096)
    assert activation_ranges(residual_net(), pictures, tensors, "minmax", symmetric=False) == whole
    monkeypatch.setattr(ranges, "_update", seen)
    assert set(activation_ranges(residual_net(), pictures, tensors, "percentile", False).values()) == {(0.0, 0.0)}
    assert max(sizes) == 5 * 2048
    assert sum(sizes) == 70 * 4096


@pytest.mark.parametrize("batch", ["batch", 4])
def test_what_is_held_at_a_time_changes_no_range(batch: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors of 2 KiB an image: histograms wait for another pass, the smallest and largest come row by row."""
    passes: list[list[str]] = []
    own = ranges._session

    def opened(model: onnx.ModelProto, tensors: list[str]) -> object:
        passes.append(tensors)
        return own(model, tensors)

    asked = {"conv1": ["percentile"], "conv2": ["minmax"], "conv3": ["minmax"], "relu2": ["entropy", "percentile"]}
    monkeypatch.setattr(ranges, "_session", opened)
    whole, few = [], [ranges.HELD_BYTES, 3 * 4096]
    for held in few:
        monkeypatch.setattr(ranges, "HELD_BYTES", held)
        whole.append(ranges.collect_ranges(residual_net(batch=batch), samples(images(36)), asked, symmetric=False))
    assert whole[0] == whole[1]
    if batch == "batch":
        assert passes == [["conv2", "conv3"], ["conv1", "relu2"], ["conv2", "conv3"], ["conv1"], ["relu2"]]
    else:  # its rows come four at a time: no tensor but the first fits beside another
        assert passes == [["conv1", "conv2", "conv3", "relu2"], ["conv1"], ["conv2"], ["conv3"], ["relu2"]]


def test_a_method_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="calibration method 'mean' is not one of minmax, percentile, entropy, mse"):
        activation_ranges(residual_net(), images(4), ["conv2"], "mean", symmetric=False)


def test_several_methods_see_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[str]] = []
    usual = ranges._session

    def counting(model: onnx.ModelProto, tensors: list[str]) -> object:
        session = usual(model, tensors)

        class Counted:
            def run(self, names: list[str], feed: object) -> object:
                runs.append(names)
                return session.run(names, feed)

        return Counted()

    monkeypatch.setattr(ranges, "_session", counting)
    asked = {"conv2": METHODS, "relu1": ["entropy"]}
    seen = ranges.collect_ranges(residual_net(), samples(images(70)), asked, symmetric=True)
    assert runs == [["conv2", "relu1"]] * 3  # 32 + 32 + 6 images
    assert {name: list(methods) for name, methods in seen.tensors.items()} == {
        "conv2": METHODS, "relu1": ["minmax", "entropy"]
    }  # fmt: skip
    for method in METHODS:
        assert (
            seen.of(method)["conv2"] == activation_ranges(residual_net(), images(70), ["conv2"], method, True)["conv2"]
        )


def test_methods_that_see_every_other_row_see_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images(39)
    pictures[::2] //= 8
    asked = {"conv2": ["mse", "percentile"]}
    usual = activation_ranges(residual_net(), pictures, ["conv2"], "minmax", symmetric=False)
    half = activation_ranges(residual_net(), pictures[::2], ["conv2"], "mse", symmetric=False)
    whole = activation_ranges(residual_net(), pictures, ["conv2"], "percentile", symmetric=False)
    monkeypatch.setattr(ranges, "HELD_BYTES", 3 * 4096)  # blocks that begin at odd rows, too
    seen = ranges.collect_ranges(
        residual_net(), samples(pictures), asked, symmetric=False, largest_batch=3, halved=["mse"]
    )
    assert seen.of("minmax") == usual
    assert seen.of("mse")["conv2"] == pytest.approx(half["conv2"], rel=0.03)
    assert seen.of("mse") != activation_ranges(residual_net(), pictures, ["conv2"], "mse", symmetric=False)
    assert seen.of("percentile")["conv2"] == pytest.approx(whole["conv2"], rel=0.1)
