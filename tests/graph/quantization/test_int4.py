"""Weights alone in INT4: the same numbers for an engine and for a CPU, from a plan, and next to nothing of the size."""

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
from dlx_deploy.graph.model import Index, load, opset
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, plan_bytes
from dlx_deploy.graph.quantization.quantize import (
    NothingToQuantize,
    QuantizationReport,
    QuantizationRequest,
    quantize_model,
)
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.untyped import Array

from ...onnx_fixtures import node, product_net, residual_net

SAMPLES = Samples({"x": np.random.default_rng(1).normal(0, 1, (48, 3, 64)).astype(np.float32)})


def int4(folder: Path, style: str = "tensorrt", given: dict[str, Any] | None = None, **more: Any) -> QuantizationReport:
    """The report of a build whose graph is ``q.onnx``."""
    (folder / "net.onnx").write_bytes(product_net().SerializeToString())
    plan = msgspec.convert({"schema": 1, **(given or {})}, QuantizationPlan)
    wanted: dict[str, Any] = {"int8": False, "block_size": 32, "given": plan, **more}
    request = QuantizationRequest(style, **wanted)  # type: ignore[arg-type]
    return quantize_model(folder / "net.onnx", folder / "q.onnx", SAMPLES, request)


def answers(path: Path, exact: bool) -> Array:
    return run_onnx(path, SAMPLES, exact_qdq=exact)["logits"]


def noise_db(folder: Path, exact: bool) -> float:
    wanted = answers(folder / "net.onnx", exact=False).astype(np.float64)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - answers(folder / "q.onnx", exact)).sum()))


@pytest.mark.parametrize("half", [False, True])
def test_an_engine_gets_int4_and_a_cpu_the_same_numbers(half: bool, tmp_path: Path) -> None:
    report = int4(tmp_path, half=half)
    assert report.layers == {"first/MatMul": "int4", "head/Gemm": "int4"}
    model = load(tmp_path / "q.onnx")
    stored = [t.name for t in model.graph.initializer if t.data_type == TensorProto.INT4]
    assert stored == ["first.weight/axis1/quantized", "head.weight/quantized"]
    assert opset(model) == 21
    engine = answers(tmp_path / "q.onnx", exact=True)
    cpu = int4(tmp_path, "cpu")
    model = load(tmp_path / "q.onnx")
    assert opset(model) == 20
    assert node(model, "head/Gemm").op_type == node(model, "first/MatMul").op_type == "MatMulNBits"
    assert cpu.layers == report.layers
    found = answers(tmp_path / "q.onnx", exact=False)
    np.testing.assert_allclose(found, engine, atol=3e-2 if half else 1e-5)  # half: other scales
    assert noise_db(tmp_path, exact=False) > 15


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_the_file_is_an_eighth_and_its_cost_is_known(style: str, tmp_path: Path) -> None:
    int4(tmp_path, style)
    before, after = (model_summary(tmp_path / name) for name in ("net.onnx", "q.onnx"))
    assert (after.macs, after.parameters) == (before.macs, before.parameters)
    weights = 64 * 64 + 64 * 10
    assert before.size_bytes - after.size_bytes > 4 * weights - weights // 2 - 4 * weights // 32 - 1500
    costs = {cost.name: cost for cost in layer_costs(tmp_path / "q.onnx")}
    assert {cost.dtype for cost in costs.values() if cost.macs} == {"int4"}
    assert costs["first/MatMul"].weight_bytes < 64 * 64 // 2 + 4 * (64 * 64 // 32 + 64 + 1)


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
@pytest.mark.parametrize("effort", ["fast", "best"])
def test_a_plan_that_is_given_back_gives_the_same_bytes(effort: str, style: str, tmp_path: Path) -> None:
    report = int4(tmp_path, style, effort=effort, block_size=64)
    line = {"precision": "int4", "source": report.plan.layers["head/Gemm"].source, "block_size": 64}
    assert msgspec.to_builtins(report.plan)["layers"]["head/Gemm"] == line
    before = (tmp_path / "q.onnx").read_bytes()
    again = int4(tmp_path, style, msgspec.json.decode(plan_bytes(report.plan)), effort=effort)
    assert (tmp_path / "q.onnx").read_bytes() == before
    assert again.plan == report.plan


def test_effort_makes_the_answers_better(tmp_path: Path) -> None:
    found = []
    for effort in ("fast", "best"):
        report = int4(tmp_path, effort=effort)
        found.append(noise_db(tmp_path, exact=True))
    assert [step.step for step in report.decisions.steps][:2] == ["block scales by mse", "learned rounding"]
    assert any(step.kept for step in report.decisions.steps)
    assert found[1] > found[0] + 1


def test_one_layer_has_other_blocks_and_one_stays_as_it_is(tmp_path: Path) -> None:
    layers = {
        "first/MatMul": {"precision": "int4", "block_size": 64, "source": "mse"},
        "head/Gemm": {"precision": "fp32"},
    }
    report = int4(tmp_path, given={"layers": layers})
    assert report.layers == {"first/MatMul": "int4", "head/Gemm": "fp32"}
    assert report.plan.layers["first/MatMul"] == LayerPlan(precision="int4", source="mse", block_size=64)
    assert Index(load(tmp_path / "q.onnx")).array("first.weight/axis1/scale").shape == (1, 64)
    assert int4(tmp_path, exclude=("head",)).layers["head/Gemm"] == "fp32"


def test_layers_that_cannot_be_int4_stay_in_floating_point(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(residual_net(opset=20).SerializeToString())
    request = QuantizationRequest("cpu", int8=False, block_size=32)
    pictures = Samples({"images": np.zeros((2, 8, 8, 1), np.uint8)})
    message = (
        r"no layer is left to quantize .*the graph has 3 Conv, 1 Gemm.*rule: Gemm and MatMul of a constant matrix with "
        r"a multiple of 32 inputs become INT4; set quantize\.precision = 'fp32'"
    )
    with pytest.raises(NothingToQuantize, match=message):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", pictures, request)
    assert int4(tmp_path, block_size=32, given={"layers": {"head/Gemm": {"precision": "fp32"}}}).layers


REFUSED = [
    ({"layers": {"head/Gemm": {}}}, r"precision is 'int8'; quantize\.precision lets nothing be int8; set one"),
    (
        {"layers": {"head/Gemm": {"precision": "int4", "block_size": 128}}},
        r"precision is 'int4', and it has 64 inputs; rule: a multiple of the block size, 128; set it to 'fp32'",
    ),
    (
        {"layers": {"head/Gemm": {"precision": "int4", "source": "mine"}}},
        r"source is 'mine'; rule: max or mse, by which scales follow",
    ),
    (
        {"layers": {"head/Gemm": {"precision": "int4", "scales": [1.0] * 10}}},
        r"scales: rule: for int8 layers whose scales the plan decides",
    ),
    (
        {"layers": {"head/Gemm": {"precision": "fp32", "block_size": 32}}},
        r"block_size is 32; rule: beside precision 'int4'; leave it out",
    ),
    ({"scheme": "tensorrt"}, r"scheme is 'tensorrt', and this target's is 'int4'"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_fit(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^quantize\.plan: .*{message}"):
        int4(tmp_path, given=given)


def test_a_plan_of_int4_where_nobody_asks_for_it(tmp_path: Path) -> None:
    given = {"layers": {"head/Gemm": {"precision": "int4"}}}
    with pytest.raises(ConfigError, match=r"precision is 'int4'; quantize\.precision lets nothing be int4; set one"):
        int4(tmp_path, given=given, int8=False, block_size=0)


def test_layers_that_share_weights_share_their_blocks(tmp_path: Path) -> None:
    model = product_net()
    model.graph.node[0].input[0] = "again"
    model.graph.node.insert(0, helper.make_node("MatMul", ["x", "first.weight"], ["again"], name="zero/MatMul"))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    lines = {"first/MatMul": {"precision": "int4"}, "zero/MatMul": {"precision": "int4", "source": "mse"}}
    given = msgspec.convert({"schema": 1, "layers": lines}, QuantizationPlan)
    request = QuantizationRequest("cpu", int8=False, block_size=32, given=given)
    with pytest.raises(ConfigError, match=r"layers\['first/MatMul'\] and that of 'zero/MatMul' differ; rule: one line"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", SAMPLES, request)
    shared = QuantizationRequest("cpu", int8=False, block_size=32)
    quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", SAMPLES, shared)
    names = [t.name for t in load(tmp_path / "q.onnx").graph.initializer]
    assert names.count("first.weight/axis1/quantized/nbits") == 1
    assert answers(tmp_path / "q.onnx", exact=False) == pytest.approx(answers(tmp_path / "net.onnx", False), abs=0.5)
