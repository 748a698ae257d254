"""A plan that does not fit is an error that names the line, the rule and what is near."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.layers import through_qdq
from dlx_deploy.graph.quantization.plan import QuantizationPlan, plan_bytes
from dlx_deploy.graph.quantization.quantize import (
    NothingToQuantize,
    QuantizationReport,
    QuantizationRequest,
    unquantized,
)

from ...arrays import quantize_model
from ...onnx_fixtures import Net, images, node, residual_net, token_net

PICTURES = images(20)


def part(given: dict[str, Any]) -> QuantizationPlan:
    return msgspec.convert({"schema": 1, **given}, QuantizationPlan)


def quantized(
    folder: Path, style: str = "tensorrt", given: dict[str, Any] | QuantizationPlan | None = None, **more: Any
) -> QuantizationReport:
    """The report of a build with a plan, whose graph is ``q.onnx``."""
    (folder / "net.onnx").write_bytes(residual_net(opset=20).SerializeToString())
    plan = given if isinstance(given, QuantizationPlan) else part(given or {})
    request = QuantizationRequest(style, given=plan, **more)  # type: ignore[arg-type]
    return quantize_model(folder / "net.onnx", folder / "q.onnx", PICTURES, request)


STYLES: list[tuple[str, dict[str, Any]]] = [
    ("tensorrt", {}),
    ("tensorrt", {"half": True}),
    ("tensorrt", {"method": "percentile", "exclude": ("conv2",)}),
    ("tensorrt", {"int8": False, "half": True}),
    ("cpu", {}),
    ("cpu", {"reduce_range": True, "exclude": ("conv3/*",)}),
]


@pytest.mark.parametrize(("style", "more"), STYLES)
def test_a_plan_that_is_given_back_gives_the_same_graph_without_calibration(
    style: str, more: dict[str, Any], tmp_path: Path
) -> None:
    first = quantized(tmp_path, style, **more)
    before = (tmp_path / "q.onnx").read_bytes()
    read = msgspec.json.decode(plan_bytes(first.plan), type=QuantizationPlan)
    assert read == first.plan
    second = quantized(tmp_path, style, read, **more)
    assert (tmp_path / "q.onnx").read_bytes() == before
    assert second.plan == first.plan
    assert second.ranges.tensors == {}


def test_a_plan_of_dynamic_activations_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(token_net().SerializeToString())
    tokens = np.ones((2, 4), np.int32)
    request = QuantizationRequest("cpu", dynamic=True)
    report = quantize_model(tmp_path / "net.onnx", tmp_path / "a", tokens, request)
    assert json.loads(plan_bytes(report.plan)) == {
        "schema": 1,
        "scheme": "cpu-dynamic",
        "tensors": {},
        "layers": {"head/Gemm": {"precision": "fp32"}, "mix/MatMul": {"source": "max"}},
    }
    again = QuantizationRequest("cpu", dynamic=True, given=report.plan)
    quantize_model(tmp_path / "net.onnx", tmp_path / "b", tokens, again)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_one_layer_in_floating_point(style: str, tmp_path: Path) -> None:
    report = quantized(tmp_path, style, {"layers": {"conv2/Conv": {"precision": "fp32"}}})
    assert report.layers == {
        "conv1/Conv": "int8", "conv2/Conv": "fp32", "conv3/Conv": "int8", "logits/Gemm": "int8"
    }  # fmt: skip
    excluded = quantized(tmp_path, style, exclude=("conv2/Conv",))
    assert report.plan == excluded.plan


def test_a_layer_stays_in_float32_in_a_graph_of_half_precision(tmp_path: Path) -> None:
    usual = quantized(tmp_path, half=True, given={"layers": {"conv2/Conv": {"precision": "fp16"}}})
    assert usual.layers["conv2/Conv"] == "fp16"
    kept = quantized(tmp_path, half=True, given={"layers": {"conv2/Conv": {"precision": "fp32"}}})
    assert kept.layers["conv2/Conv"] == "fp32"
    assert kept.layers["conv3/Conv"] == "int8"


@pytest.mark.parametrize(("style", "name", "zero"), [("tensorrt", "relu1/scale", 0), ("cpu", "relu1_scale", 7)])
def test_one_scale_is_changed_and_the_rest_stays(style: str, name: str, zero: int, tmp_path: Path) -> None:
    first = quantized(tmp_path, style)
    changed = quantized(tmp_path, style, {"tensors": {"relu1": {"scale": 0.125, "zero_point": zero}}})
    index = Index(load(tmp_path / "q.onnx"))
    assert index.array(name) == np.float32(0.125)
    assert changed.plan.tensors["relu1"].source == "given"
    assert {k: v for k, v in changed.plan.tensors.items() if k != "relu1"} == {
        k: v for k, v in first.plan.tensors.items() if k != "relu1"
    }
    assert "relu1" not in changed.ranges.tensors


def test_scales_of_weights_can_be_given(tmp_path: Path) -> None:
    quantized(tmp_path, given={"layers": {"logits/Gemm": {"scales": [0.25] * 10, "source": "learned"}}})
    index = Index(load(tmp_path / "q.onnx"))
    assert index.array("fc.weight/scale").tolist() == [0.25] * 10
    steps = index.array("fc.weight/quantized")
    weight = Index(residual_net(opset=20)).array("fc.weight").astype(np.float32)
    assert (steps == np.rint(weight / 0.25)).all()


def largest(folder: Path) -> dict[str, int]:
    """Weight → the largest magnitude of its integers."""
    index = Index(load(folder / "q.onnx"))
    steps = {name: index.array(name) for name in index.initializers if name.endswith("quantized")}
    return {
        name[: -len("/quantized")]: int(np.abs(values.astype(int)).max())
        for name, values in steps.items()
        if values.dtype == np.int8 and values.ndim > 1
    }


WEIGHTS = ("conv1.weight", "conv2.weight", "conv3.weight", "fc.weight")


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_weights_of_four_bits_are_said_by_the_plan(style: str, tmp_path: Path) -> None:
    report = quantized(tmp_path, style, weight_bits=4)
    assert largest(tmp_path) == dict.fromkeys(WEIGHTS, 7)
    assert {line.weight_bits for line in report.plan.layers.values()} == {4}
    before = (tmp_path / "q.onnx").read_bytes()
    again = quantized(tmp_path, style, msgspec.json.decode(plan_bytes(report.plan), type=QuantizationPlan))
    assert (tmp_path / "q.onnx").read_bytes() == before
    assert again.plan == report.plan


@pytest.mark.parametrize(("style", "ends"), [("tensorrt", (-8, 7)), ("cpu", (0, 15))])
def test_activations_of_four_bits_are_said_by_the_plan_and_clipped(
    style: str, ends: tuple[int, int], tmp_path: Path
) -> None:
    report = quantized(tmp_path, style, activation_bits=4)
    own = {name: line for name, line in report.plan.tensors.items() if not line.like}
    assert {line.bits for line in own.values()} == {4}
    graph = load(tmp_path / "q.onnx")
    index = Index(graph)
    clips = {node.name: node for node in graph.graph.node if node.op_type == "Clip"}
    assert {f"{name}/Clip" for name in own} <= clips.keys()
    for name, line in own.items():
        bounds = [index.array(end) for end in clips[f"{name}/Clip"].input[1:]]
        steps = [float(bound) / (line.scale or 0) + (line.zero_point or 0) for bound in bounds]
        assert steps == pytest.approx(ends, abs=1e-4)
    before = (tmp_path / "q.onnx").read_bytes()
    quantized(tmp_path, style, msgspec.json.decode(plan_bytes(report.plan), type=QuantizationPlan))
    assert (tmp_path / "q.onnx").read_bytes() == before
    some = {"tensors": {name: {"bits": 8} for name in own}}
    plain = quantized(tmp_path, style, some, activation_bits=4).plan
    assert {line.bits for line in plain.tensors.values()} == {None}


def test_one_layer_has_weights_of_four_bits(tmp_path: Path) -> None:
    report = quantized(tmp_path, given={"layers": {"conv2/Conv": {"weight_bits": 4}}})
    assert largest(tmp_path) == {**dict.fromkeys(WEIGHTS, 127), "conv2.weight": 7}
    assert report.plan.layers["conv2/Conv"].weight_bits == 4
    quantized(tmp_path, given={"layers": {"conv2/Conv": {"weight_bits": 8}}}, weight_bits=4)
    assert largest(tmp_path) == {**dict.fromkeys(WEIGHTS, 7), "conv2.weight": 127}


def test_scales_of_eight_bits_stay_so_where_four_are_asked_for(tmp_path: Path) -> None:
    eight = quantized(tmp_path)
    scales = {"conv2/Conv": eight.plan.layers["conv2/Conv"]}
    quantized(tmp_path, given=QuantizationPlan(schema=1, layers=scales), weight_bits=4)
    assert largest(tmp_path) == {**dict.fromkeys(WEIGHTS, 7), "conv2.weight": 127}


def test_a_tensor_can_be_calibrated_by_another_method(tmp_path: Path) -> None:
    report = quantized(tmp_path, given={"tensors": {"relu1": {"source": "percentile"}}})
    assert set(report.ranges.tensors["relu1"]) == {"minmax", "percentile"}
    assert set(report.ranges.tensors["relu2"]) == {"minmax"}
    assert report.plan.tensors["relu1"].source == "percentile"


def test_the_identity_of_a_sum_can_be_left_in_floating_point(tmp_path: Path) -> None:
    readers = {"tensors": {"relu1": {"readers": ["conv2/Conv"]}}}
    report = quantized(tmp_path, given=readers)
    model = load(tmp_path / "q.onnx")
    assert all(through_qdq(Index(model), name) is None for name in node(model, "sum/Add").input)
    assert report.plan.tensors["relu1"].readers == ("conv2/Conv",)


def test_a_tensor_between_kernels_can_be_left_in_floating_point(tmp_path: Path) -> None:
    quantized(tmp_path, "cpu", {"tensors": {"pooled": {"precision": "fp32"}, "flat": {"precision": "fp32"}},
                                "layers": {"logits/Gemm": {"precision": "fp32"}}})  # fmt: skip
    index = Index(load(tmp_path / "q.onnx"))
    assert through_qdq(index, node(index.model, "logits/Gemm").input[0]) is None


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "tensorrt",
        {"layers": {"conv9/Conv": {}}},
        r"layers\['conv9/Conv'\]: the graph has no such layer; the nearest",
    ),
    ("tensorrt", {"tensors": {"relu9": {}}}, r"tensors\['relu9'\]: the graph computes no such; the ne"),
    ("tensorrt", {"tensors": {"pooled": {}}}, r"tensors\['pooled'\]: the scheme 'tensorrt' leaves it as it is"),
    (
        "tensorrt",
        {"scheme": "cpu"},
        r"scheme is 'cpu', and this target's is 'tensorrt'; rule: scales are for",
    ),
    (
        "tensorrt",
        {"layers": {"conv2/Conv": {"precision": "fp16"}}},
        r"precision is 'fp16'; no FP16 is written",
    ),
    (
        "tensorrt",
        {"layers": {"conv2/Conv": {"scales": [1.0, 2.0]}}},
        r"layers\['conv2/Conv'\]\.scales: 2 numbers from 1\.0 to 2\.0; rule: one for each of its 8 output channels",
    ),
    ("tensorrt", {"layers": {"conv2/Conv": {"scales": [0.0] * 8}}}, r"8 numbers from 0\.0 to 0\.0; rule: .*above 0"),
    (
        "tensorrt",
        {"layers": {"conv2/Conv": {"precision": "fp32", "scales": [1.0] * 8}}},
        r"scales: rule: for int8 layers whose scales the plan decides; leave them out",
    ),
    (
        "tensorrt",
        {"layers": {"conv2/Conv": {"precision": "fp32", "weight_bits": 4}}},
        r"layers\['conv2/Conv'\]\.weight_bits is 4; rule: for int8 layers on static ranges; leave it out",
    ),
    ("tensorrt", {"tensors": {"x": {"scale": -1.0}}}, r"tensors\['x'\]\.scale is -1\.0; rule: finite and above 0"),
    (
        "tensorrt",
        {"tensors": {"x": {"scale": 1.0, "zero_point": 1}}},
        r"zero_point is 1; rule: 0 in the scheme",
    ),
    ("tensorrt", {"tensors": {"x": {"zero_point": 0}}}, r"zero_point is 0 without a scale; rule: both or neither"),
    (
        "tensorrt",
        {"tensors": {"x": {"source": "mine"}}},
        r"source is 'mine' without a scale; rule: one of minmax",
    ),
    (
        "cpu",
        {"tensors": {"x": {"scale": 1.0}}},
        r"zero_point is None; rule: 0 to 255 beside a scale",
    ),
    ("cpu", {"tensors": {"x": {"scale": 1.0, "zero_point": 256}}}, r"zero_point is 256; rule: 0 to 255"),
    ("cpu", {"tensors": {"flat": {"scale": 1.0, "zero_point": 1}}}, r"scale is 1\.0; rule: it shares that of 'po"),
    ("cpu", {"tensors": {"flat": {"like": "x"}}}, r"like is 'x'; rule: 'pooled'"),
    ("cpu", {"tensors": {"x": {"like": "relu1"}}}, r"like is 'relu1'; rule: none: it has a scale of its own"),
    ("cpu", {"tensors": {"x": {"readers": ["conv1/Conv"]}}}, r"readers has 'conv1/Conv'; rule: .*; leave readers out"),
    (
        "tensorrt",
        {"tensors": {"relu1": {"readers": ["conv9/Conv"]}}},
        r"readers has 'conv9/Conv'; rule: nodes that can read it in int8; the nearest: conv2/Conv",
    ),
    (
        "tensorrt",
        {"tensors": {"relu1": {"readers": ["sum/Add"]}}},
        r"tensors\['relu1'\] is not int8 for 'conv2/Conv', which is; rule: an int8 layer reads int8; set layers",
    ),
    ("cpu", {"tensors": {"relu1": {"precision": "fp32"}}}, r"tensors\['relu1'\] is not int8 for 'conv2/Conv'"),
    (
        "cpu",
        {"layers": {"conv2/Conv": {"scales": [1e-30] * 8}}},
        r"layers\['conv2/Conv'\]\.scales\[\d\] is too small: the bias .* would be .* steps; rule: at most 2\*\*31 - 1",
    ),
]


@pytest.mark.parametrize(("style", "given", "message"), REFUSED)
def test_what_does_not_fit(style: str, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^quantize\.plan: .*{message}"):
        quantized(tmp_path, style, given)
    assert not (tmp_path / "q.onnx").exists()


def test_a_plan_against_the_rest_of_the_configuration(tmp_path: Path) -> None:
    int8 = {"layers": {"conv2/Conv": {}}}
    with pytest.raises(ConfigError, match=r"layers\['conv2/Conv'\].precision is 'int8'; quantize\.exclude matches it"):
        quantized(tmp_path, given=int8, exclude=("conv2",))
    with pytest.raises(ConfigError, match=r"'int8'; quantize\.precision lets nothing be int8"):
        quantized(tmp_path, given=int8, int8=False, half=True)
    with pytest.raises(ConfigError, match=r"'int8'; quantize\.precision lets nothing be int8"):
        unquantized(tmp_path / "net.onnx", part(int8))


def test_a_plan_that_leaves_nothing_to_quantize(tmp_path: Path) -> None:
    layers = {name: {"precision": "fp32"} for name in ("conv1/Conv", "conv2/Conv", "conv3/Conv", "logits/Gemm")}
    with pytest.raises(NothingToQuantize, match=r"or let quantize\.plan leave some of its 4 floating-point layers"):
        quantized(tmp_path, given={"layers": layers})


def test_layers_that_cannot_be_int8(tmp_path: Path) -> None:
    net = Net(opset=20)
    net.weight("wide.weight", 8, 8, 2, 2)
    x = net.add("wide", "ConvTranspose", net.conv("a", net.planes(), 1, 8), "wide.weight", strides=[2, 2])
    (tmp_path / "net.onnx").write_bytes(net.head(x, 8).SerializeToString())
    request = QuantizationRequest("tensorrt", given=part({"layers": {"wide/ConvTranspose": {}}}))
    with pytest.raises(ConfigError, match=r"'int8'; rule: Conv, Gemm and MatMul with constant weights become INT8"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q", PICTURES, request)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"layers": {"mix/MatMul": {"scales": [1.0] * 16}}},
            r"scales: rule: for int8 layers whose scales the plan dec",
        ),
        ({"layers": {"mix/MatMul": {"weight_bits": 4}}}, r"weight_bits is 4; rule: for int8 layers on static ranges"),
        ({"tensors": {"rows": {}}}, r"tensors\['rows'\]: dynamic .*; set quantize\.activations to 'static', or leave"),
    ],
)
def test_dynamic_layers_and_tensors_have_no_scales_of_ours(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(token_net().SerializeToString())
    request = QuantizationRequest("cpu", dynamic=True, given=part(given))
    with pytest.raises(ConfigError, match=message):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q", np.ones((2, 4), np.int32), request)


def test_layers_that_share_weights_share_their_scales(tmp_path: Path) -> None:
    net = Net(opset=20)
    net.conv("b", net.conv("a", net.planes(), 1, 8), 8, 8)
    net.add("c", "Conv", "b", "b.weight", "b.bias", pads=[1, 1, 1, 1])
    (tmp_path / "net.onnx").write_bytes(net.head("c", 8).SerializeToString())
    layers = {"b/Conv": {"scales": [1.0] * 8}, "c/Conv": {"scales": [2.0] * 8}}
    request = QuantizationRequest("tensorrt", given=part({"layers": layers}))
    with pytest.raises(ConfigError, match=r"layers\['c/Conv'\]\.scales differ from those of 'b/Conv'; rule: one scale"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q", PICTURES, request)
    bits = part({"layers": {"b/Conv": {"weight_bits": 4}, "c/Conv": {"weight_bits": 8}}})
    with pytest.raises(ConfigError, match=r"weight_bits is 4, that of 'c/Conv' 8; rule: one for shared weights"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q", PICTURES, QuantizationRequest("tensorrt", given=bits))
