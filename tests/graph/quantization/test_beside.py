"""INT4 weights and INT8 in one graph, as a plan asks for them layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.quantization.mixed import Planned, layer_groups, without
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
from dlx_deploy.graph.quantization.quantize import QuantizationReport, QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples

from ...onnx_fixtures import Net, images, op_types

HEAD = "logits/Gemm"
LAYERS = {"a/Conv": "int8", "b/Conv": "int8", HEAD: "int4"}
STYLES: list[dict[str, Any]] = [{"style": "cpu"}, {"style": "tensorrt"}, {"style": "tensorrt", "half": True}]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two convolutions and a head of 32 inputs."""
    net = Net(20)
    x = net.add("relu", "Relu", net.conv("a", net.planes(), 1, 8))
    x = net.add("relu2", "Relu", net.conv("b", x, 8, 32))
    path = tmp_path / "m.onnx"
    path.write_bytes(net.head(x, 32).SerializeToString())
    return path


SAMPLES = Samples({"images": images(32)})


def written(
    source: Path, out: str, layers: dict[str, LayerPlan] | QuantizationPlan, **asked: Any
) -> QuantizationReport:
    given = layers if isinstance(layers, QuantizationPlan) else QuantizationPlan(schema=1, layers=layers)
    return quantize_model(source, source.with_name(out), SAMPLES, QuantizationRequest(given=given, **asked))


def answers(path: Path) -> NDArray[Any]:
    (values,) = run_onnx(path, SAMPLES, exact_qdq=True).values()
    return values.astype(np.float64)


@pytest.mark.parametrize("asked", STYLES)
def test_each_layer_has_the_integers_of_its_line(source: Path, asked: dict[str, Any]) -> None:
    report = written(source, "both.onnx", {HEAD: LayerPlan(precision="int4")}, **asked)
    assert report.layers == LAYERS
    line = report.plan.layers[HEAD]
    assert (line.precision, line.block_size, line.source) == ("int4", 32, "max")
    alone = written(source, "int8.onnx", {HEAD: LayerPlan(precision="fp16" if "half" in asked else "fp32")}, **asked)
    for name in ("a/Conv", "b/Conv"):
        assert report.plan.layers[name] == alone.plan.layers[name]
    assert report.plan.tensors == alone.plan.tensors
    model = onnx.load(source.with_name("both.onnx"))
    assert ("MatMulNBits" in op_types(model)) == (asked["style"] == "cpu")
    assert (onnx.TensorProto.INT4 in {one.data_type for one in model.graph.initializer}) == (
        asked["style"] == "tensorrt"
    )
    if "half" in asked:  # the head computes in the half precision of the rest
        (blocks,) = (one for one in model.graph.node if any(item.name == "block_size" for item in one.attribute))
        kinds = {one.name: one.data_type for one in model.graph.initializer}
        assert kinds[blocks.input[1]] == onnx.TensorProto.FLOAT16
    exact, noisy = answers(source), answers(source.with_name("both.onnx"))
    assert 10 * np.log10(np.square(exact).sum() / np.square(exact - noisy).sum()) > 15
    assert not np.array_equal(noisy, answers(source.with_name("int8.onnx")))
    written(source, "again.onnx", report.plan, **asked)
    assert source.with_name("again.onnx").read_bytes() == source.with_name("both.onnx").read_bytes()


@pytest.mark.parametrize("asked", STYLES[:2])
def test_layers_are_restored_beside_it(source: Path, asked: dict[str, Any]) -> None:
    """What sensitivity and trials give back keeps the INT4 line, which is none of theirs."""
    request = QuantizationRequest(given=QuantizationPlan(schema=1, layers={HEAD: LayerPlan(precision="int4")}), **asked)
    report = quantize_model(source, source.with_name("o.onnx"), SAMPLES, request)
    planned = Planned(source, request, report.plan, SAMPLES)
    assert layer_groups(planned) == [("a/Conv",), ("b/Conv",)]
    less = quantize_model(source, source.with_name("o.onnx"), SAMPLES, without(planned, ["a/Conv"]))
    assert less.layers == {**LAYERS, "a/Conv": "fp32"}


@pytest.mark.parametrize(
    ("name", "line", "asked", "message"),
    [
        ("a/Conv", {}, {}, r"layers\['a/Conv'\]\.precision is 'int4', and it is a Conv of weights"),
        (HEAD, {"block_size": 64}, {}, r"'int4', and it has 32 inputs; rule: a multiple of the block size, 64"),
        (HEAD, {}, {"exclude": ("*Gemm",)}, r"is 'int4'; quantize\.exclude matches it"),
        ("nope", {}, {}, r"layers\['nope'\]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    source: Path, name: str, line: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(source, "o.onnx", {name: LayerPlan(precision="int4", **line)}, style="cpu", **asked)
