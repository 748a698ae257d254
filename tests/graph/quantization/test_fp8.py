"""E4M3 in place of int8: what is stored, what it stands for, and what keeps ONNX Runtime from another answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.analysis.cost import layer_costs, model_summary
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.fp8 import fp8_array
from dlx_deploy.graph.quantization.plan import QuantizationPlan, plan_bytes
from dlx_deploy.graph.quantization.quantize import NothingToQuantize, QuantizationReport, QuantizationRequest
from dlx_deploy.graph.quantization.rules import check_tensorrt_rules
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.backends.exact import may_be_fused

from ...arrays import quantize_model
from ...onnx_fixtures import images, residual_net

PICTURES = images(32)
LAYERS = ("conv1/Conv", "conv2/Conv", "conv3/Conv", "logits/Gemm")


def fp8(folder: Path, given: dict[str, Any] | None = None, opset: int = 20, **more: Any) -> QuantizationReport:
    """The report of a build whose graph is ``q.onnx``."""
    (folder / "net.onnx").write_bytes(residual_net(opset=opset).SerializeToString())
    plan = msgspec.convert({"schema": 1, **(given or {})}, QuantizationPlan)
    wanted: dict[str, Any] = {"int8": False, "fp8": True, "given": plan, **more}
    return quantize_model(folder / "net.onnx", folder / "q.onnx", PICTURES, QuantizationRequest("tensorrt", **wanted))


def noise_db(folder: Path) -> float:
    samples = Samples({"images": np.asarray(PICTURES)})
    wanted = run_onnx(folder / "net.onnx", samples, exact_qdq=False)["logits"].astype(np.float64)
    found = run_onnx(folder / "q.onnx", samples, exact_qdq=True)["logits"]
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def test_numbers_are_the_nearest_and_end_at_448() -> None:
    values = np.array([0, 1, 1.0625, 1.1875, 17, 19, 447, 449, 1e9, -1e9, 2.0**-9, 2.0**-11, np.pi])
    wanted = [0, 1, 1, 1.25, 16, 20, 448, 448, 448, -448, 2.0**-9, 0, 3.25]  # ties to even
    assert fp8_array(values).astype(np.float64).tolist() == wanted


@pytest.mark.parametrize("half", [False, True])
def test_weights_and_activations_are_e4m3(half: bool, tmp_path: Path) -> None:
    report = fp8(tmp_path, half=half)
    assert report.layers == dict.fromkeys(LAYERS, "fp8")
    model = load(tmp_path / "q.onnx")
    index = Index(model)
    weight = Index(residual_net(opset=20)).array("conv2.weight").astype(np.float32)
    stored = index.initializers["conv2.weight/quantized"]
    assert stored.data_type == TensorProto.FLOAT8E4M3FN
    assert len(stored.raw_data) == weight.size
    scale = np.asarray(report.plan.layers["conv2/Conv"].scales, np.float32).reshape(-1, 1, 1, 1)
    assert scale.reshape(-1) == pytest.approx(np.abs(weight).reshape(8, -1).max(axis=1) / 448, rel=2**-10)
    restored = index.array("conv2.weight/quantized").astype(np.float32) * scale
    assert (np.abs(restored - weight) <= np.maximum(np.abs(weight) / 15, scale * 2.0**-10)).all()
    zero_points = {t.data_type for t in model.graph.initializer if t.name.endswith("zero_point")}
    assert zero_points == {TensorProto.FLOAT8E4M3FN}
    assert check_tensorrt_rules(model) == []
    assert {cost.dtype for cost in layer_costs(model) if cost.macs} == {"fp8"}
    assert model_summary(model).parameters == model_summary(tmp_path / "net.onnx").parameters
    assert noise_db(tmp_path) > 25


def test_a_plan_that_is_given_back_gives_the_same_bytes(tmp_path: Path) -> None:
    report = fp8(tmp_path)
    before = (tmp_path / "q.onnx").read_bytes()
    again = fp8(tmp_path, msgspec.json.decode(plan_bytes(report.plan)))
    assert (tmp_path / "q.onnx").read_bytes() == before
    assert again.plan == report.plan
    assert again.ranges.tensors == {}
    assert fp8(tmp_path, {"layers": {"conv2/Conv": {"precision": "fp32"}}}).layers["conv2/Conv"] == "fp32"


def test_effort_is_judged_by_what_the_graph_says_and_not_by_fusions(tmp_path: Path) -> None:
    """ONNX Runtime 1.32 drops a Relu in front of FP8, 15 dB of signal over noise in this network."""
    fp8(tmp_path)
    plain = noise_db(tmp_path)
    assert not may_be_fused((tmp_path / "q.onnx").read_bytes())
    assert may_be_fused((tmp_path / "net.onnx").read_bytes())
    report = fp8(tmp_path, effort="best")
    [step] = report.decisions.steps
    assert step.step == "bias correction"
    assert step.sqnr_db_before == pytest.approx(plain, abs=1.5)
    assert noise_db(tmp_path) > plain - 0.1


def test_an_older_opset_has_no_e4m3(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the graph is at opset 18; rule: 19 or newer for FP8"):
        fp8(tmp_path, opset=18)


def test_what_a_plan_says_of_another_precision(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision is 'int8'; quantize\.precision lets nothing be int8; set one of"):
        fp8(tmp_path, {"layers": {"conv2/Conv": {}}})
    with pytest.raises(ConfigError, match=r"precision is 'fp8'; quantize\.precision lets nothing be fp8; set one of"):
        fp8(tmp_path, {"layers": {"conv2/Conv": {"precision": "fp8"}}}, int8=True, fp8=False)
    floats = {"layers": {name: {"precision": "fp32"} for name in LAYERS}}
    with pytest.raises(NothingToQuantize, match=r"become FP8; set .*leave some of its 4 floating-point layers to fp8"):
        fp8(tmp_path, floats)


def test_an_e4m3_constant_that_is_read_as_it_is(tmp_path: Path) -> None:
    fp8(tmp_path)
    model = load(tmp_path / "q.onnx")
    model.graph.node.append(helper.make_node("Identity", ["conv2.weight/quantized"], ["stray"], name="stray"))
    assert any(found.startswith("int8-constants: node 'stray'") for found in check_tensorrt_rules(model))
