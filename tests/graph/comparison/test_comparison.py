"""A graph in integers beside the one in floating point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.comparison import tapped
from dlx_deploy.graph.comparison.coverage import range_coverage, ranges_in
from dlx_deploy.graph.comparison.noise import CAP_DB, layer_noise, sqnr_db
from dlx_deploy.graph.comparison.pairing import paired_layers
from dlx_deploy.graph.comparison.restored import restored
from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.quantization.scheme import TENSORRT

from ...arrays import quantize_model, run_onnx, samples
from ...onnx_fixtures import Net, images, residual_net, token_net, with_qdq

INPUTS = images(40)


def written(plain: ModelProto, folder: Path, request: QuantizationRequest) -> ModelProto:
    (folder / "plain.onnx").write_bytes(to_bytes(plain))
    quantize_model(folder / "plain.onnx", folder / "written.onnx", INPUTS, request)
    return load(folder / "written.onnx")


@pytest.mark.parametrize(
    "request_",
    [
        QuantizationRequest("tensorrt"),
        QuantizationRequest("cpu"),
        QuantizationRequest("tensorrt", half=True),
        QuantizationRequest("tensorrt", activation_bits=4),
        QuantizationRequest("tensorrt", fp8=True),
    ],
    ids=["tensorrt", "cpu", "half", "4 bits", "fp8"],
)
def test_every_layer_is_found_and_measured(request_: QuantizationRequest, tmp_path: Path) -> None:
    plain = residual_net("conv", opset=19)
    model = written(plain, tmp_path, request_)
    exact = request_.style == "tensorrt"
    pairs = paired_layers(plain, model)
    assert [pair.name for pair in pairs] == ["conv1/Conv", "conv2/Conv", "conv3/Conv", "short/Conv", "logits/Gemm"]
    assert all(pair.is_compressed for pair in pairs)
    found = layer_noise(plain, model, pairs, samples(INPUTS), exact)
    for one in found:
        assert one.sqnr_db is not None
        assert one.own_sqnr_db is not None
        assert 5 < one.sqnr_db < 60
        assert one.own_sqnr_db > one.sqnr_db - 3, "a layer alone has no noise of others"
    assert found[0].own_sqnr_db == pytest.approx(found[0].sqnr_db, abs=0.2), "nothing is before the first"
    whole = restored(plain, model, pairs, between=not exact)
    before, after, wanted = (run_onnx(to_bytes(m), INPUTS, exact_qdq=exact) for m in (model, whole, plain))
    most = np.square(before - wanted).sum() if exact else 1e-3 * np.square(wanted).sum()
    assert np.square(after - wanted).sum() < most, "sums alone are on integers, or what is between kernels"


def test_what_clips_in_the_quantizer_clips_still(tmp_path: Path) -> None:
    plain = residual_net("conv")
    model = written(plain, tmp_path, QuantizationRequest("cpu"))
    pairs = paired_layers(plain, model)
    assert next(pair for pair in pairs if pair.name == "conv2/Conv").reads == "relu1"
    model_of = [to_bytes(restored(plain, model, pairs, between)) for between in (True, False)]
    one, other = (run_onnx(data, INPUTS, exact_qdq=False) for data in model_of)
    np.testing.assert_allclose(one, other, atol=0.1)


def test_a_chain_that_is_restored_is_what_it_was() -> None:
    net = Net()
    plain = net.head(net.conv("conv2", net.add("relu1", "Relu", net.conv("conv1", net.planes(), 1, 8)), 8, 8), 8)
    model = with_qdq(plain, TENSORRT)
    whole = restored(plain, model, paired_layers(plain, model), between=False)
    assert {node.op_type for node in whole.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    answers, wanted = (run_onnx(to_bytes(m), INPUTS, exact_qdq=True) for m in (whole, plain))
    np.testing.assert_array_equal(answers, wanted)


def test_a_restored_layer_is_what_exclude_would_write(tmp_path: Path) -> None:
    plain = residual_net("conv")
    model = written(plain, tmp_path, QuantizationRequest("tensorrt"))
    pair = next(pair for pair in paired_layers(plain, model) if pair.name == "conv2/Conv")
    ours = restored(plain, model, [pair], between=False)
    theirs = written(plain, tmp_path, QuantizationRequest("tensorrt", exclude=("conv2/Conv",)))
    one, other = (run_onnx(to_bytes(m), INPUTS, exact_qdq=True) for m in (ours, theirs))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * float(np.abs(other).max()))


def test_some_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = residual_net()
    model = with_qdq(plain, TENSORRT)
    pairs = paired_layers(plain, model)

    def found() -> list[tuple[float | None, float | None]]:
        measured = layer_noise(plain, model, pairs, samples(INPUTS), exact=True)
        return [(one.sqnr_db, one.own_sqnr_db) for one in measured]

    whole, coverage = found(), range_coverage(plain, model, samples(INPUTS))
    monkeypatch.setattr(tapped, "HELD_BYTES", 1)
    assert len(list(tapped.parts_of(samples(INPUTS), 100, None))) == len(INPUTS)
    np.testing.assert_allclose(np.array(found()), np.array(whole), atol=2e-3)
    assert range_coverage(plain, model, samples(INPUTS)) == coverage


def test_a_fixed_batch_is_filled_and_its_copies_do_not_count() -> None:
    plain, fixed = residual_net(), residual_net(batch=16)
    some = samples(INPUTS[:20])
    pairs = paired_layers(plain, with_qdq(plain, TENSORRT))
    one = layer_noise(plain, with_qdq(plain, TENSORRT), pairs, some, exact=True)
    pairs = paired_layers(fixed, with_qdq(fixed, TENSORRT))
    other = layer_noise(fixed, with_qdq(fixed, TENSORRT), pairs, some, exact=True)
    assert [x.sqnr_db for x in one] == pytest.approx([x.sqnr_db for x in other], abs=2e-3)


def test_ranges_that_clip_are_counted() -> None:
    plain = residual_net()
    model = with_qdq(plain, TENSORRT, bounds=(-1.0, 1.0))
    (low, high, half) = ranges_in(model)["relu1"]
    assert (low, high) == (pytest.approx(-128 / 127), pytest.approx(1.0))
    found = {one.tensor: one for one in range_coverage(plain, model, samples(INPUTS))}
    values = run_onnx(to_bytes(_giving(plain, "relu1")), INPUTS, exact_qdq=False)
    seen = found["relu1"]
    assert seen.node == "relu1/Relu"
    assert seen.clipped == pytest.approx((values > high + half).mean())
    assert seen.samples == pytest.approx((values > high + half).any(axis=(1, 2, 3)).mean())
    assert seen.beyond == pytest.approx((values.max() - high) / (high - low))
    assert (seen.seen_low, seen.seen_high) == (values.min(), values.max())
    assert found["x"].clipped == 0
    clipped = [one.clipped * (1 + one.beyond) for one in found.values()]
    assert clipped == sorted(clipped, reverse=True)


def test_a_range_that_is_far_too_wide_is_hardly_used() -> None:
    plain = residual_net()
    found = range_coverage(plain, with_qdq(plain, TENSORRT, bounds=(-500.0, 500.0)), samples(INPUTS))
    assert max(one.used for one in found) < 0.05
    assert not any(one.clipped for one in found)


def test_dynamic_products_and_products_of_four_bits_are_layers_too(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 9, (12, 6), dtype=np.int32)
    (tmp_path / "plain.onnx").write_bytes(to_bytes(token_net()))
    plain = load(tmp_path / "plain.onnx")
    request = QuantizationRequest("cpu", dynamic=True, reduce_range=True)
    quantize_model(tmp_path / "plain.onnx", tmp_path / "out.onnx", tokens, request)
    model = load(tmp_path / "out.onnx")
    pairs = [pair for pair in paired_layers(plain, model) if pair.is_compressed]
    assert [pair.name for pair in pairs] == ["mix/MatMul"]
    (found,) = layer_noise(plain, model, pairs, samples(tokens, name="tokens"), exact=False)
    assert found.sqnr_db is not None
    assert 20 < found.sqnr_db < CAP_DB
    answers, wanted = (
        run_onnx(to_bytes(m), tokens, exact_qdq=False) for m in (restored(plain, model, pairs, True), plain)
    )
    np.testing.assert_allclose(answers, wanted, rtol=1e-5, atol=1e-5)


def _giving(model: ModelProto, tensor: str) -> ModelProto:
    copy = load(model)
    copy.graph.output[0].name = tensor
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


def test_a_dimension_of_two_is_no_batch() -> None:
    """Keys and values of attention are stacked before the samples."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["pairs"]),
        helper.make_node("Transpose", ["pairs"], ["kv"], perm=[1, 0, 2]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    shape = numpy_helper.from_array(np.array([-1, 2, 2], np.int64), "shape")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert {"x", "pairs", "y"} <= tapped.row_tensors(model).keys()
    assert "kv" not in tapped.row_tensors(model)


def test_nothing_beside_nothing_is_no_noise() -> None:
    silence = np.zeros((2, 3), np.float32)
    assert sqnr_db(silence, silence) == CAP_DB
    assert sqnr_db(silence, silence + 1) == -CAP_DB
