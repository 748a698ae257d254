"""BF16 as FP16 is written, and judged by rounding, where ONNX Runtime has no kernels for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.analysis.cost import layer_costs
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.quantize import (
    NothingToQuantize,
    QuantizationReport,
    QuantizationRequest,
    quantize_model,
)
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.backends.exact_half import float32_twin

from ...onnx_fixtures import images, product_net, residual_net

ROWS = Samples({"x": np.random.default_rng(1).normal(0, 1, (32, 3, 64)).astype(np.float32)})
PICTURES = Samples({"images": images(16)})


def bf16(folder: Path, model: ModelProto, samples: Samples, given: dict[str, Any] | None = None) -> QuantizationReport:
    """The report of a build whose graph is ``q.onnx``."""
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    plan = msgspec.convert({"schema": 1, **(given or {})}, QuantizationPlan)
    request = QuantizationRequest("tensorrt", int8=False, bf16=True, given=plan)
    return quantize_model(folder / "net.onnx", folder / "q.onnx", samples, request)


def noise_db(folder: Path, samples: Samples) -> float:
    wanted = run_onnx(folder / "net.onnx", samples, exact_qdq=False)["logits"].astype(np.float64)
    found = run_onnx(folder / "q.onnx", samples, exact_qdq=True)["logits"]
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def test_products_compute_in_bf16_and_are_judged_so(tmp_path: Path) -> None:
    report = bf16(tmp_path, product_net(), ROWS)
    assert report.layers == {"first/MatMul": "bf16", "head/Gemm": "bf16"}
    assert report.plan.layers["head/Gemm"].precision == "bf16"
    model = load(tmp_path / "q.onnx")
    assert Index(model).initializers["head.weight/bf16"].data_type == TensorProto.BFLOAT16
    assert {cost.dtype for cost in layer_costs(model) if cost.macs} == {"bf16"}
    assert model.ByteSize() < 0.6 * load(tmp_path / "net.onnx").ByteSize()
    assert 35 < noise_db(tmp_path, ROWS) < 60  # eight bits: not FP16's 65 dB, and not float32
    kept = bf16(tmp_path, product_net(), ROWS, {"layers": {"head/Gemm": {"precision": "fp32"}}})
    assert kept.layers == {"first/MatMul": "bf16", "head/Gemm": "fp32"}


def test_convolutions_compute_in_bf16_from_opset_22_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = bf16(tmp_path, residual_net(opset=22), PICTURES)
    assert set(report.layers.values()) == {"bf16"}
    assert noise_db(tmp_path, PICTURES) > 30
    assert not caplog.messages
    older = bf16(tmp_path, residual_net(opset=20), PICTURES)
    [said] = caplog.messages
    assert said == "3 of 4 layers stay in FP32 (conv1/Conv, conv2/Conv, conv3/Conv); at opset 20: Conv can from 22 on"
    assert older.layers == {"conv1/Conv": "fp32", "conv2/Conv": "fp32", "conv3/Conv": "fp32", "logits/Gemm": "bf16"}


def test_a_graph_without_bf16_is_not_called_so(tmp_path: Path) -> None:
    model = residual_net(opset=20)
    floats = {"layers": {"logits/Gemm": {"precision": "fp32"}}}
    with pytest.raises(
        NothingToQuantize, match=r"no layer can compute in BF16 at opset 20; .*Conv from 22 on; set expo"
    ):
        bf16(tmp_path, model, PICTURES, floats)
    with pytest.raises(ConfigError, match=r"precision is 'fp16'; no FP16 is written into this graph"):
        bf16(tmp_path, model, PICTURES, {"layers": {"logits/Gemm": {"precision": "fp16"}}})


def test_the_twin_rounds_to_bfloat16_wherever_it_was() -> None:
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    weight = np.random.default_rng(0).normal(0, 1, (8, 4)).astype(kind)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", dim]) for name, dim in (("x", 8), ("y", 4))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = np.random.default_rng(1).normal(0, 1, (5, 8)).astype(np.float32)
    found = run_onnx(float32_twin(model.SerializeToString()), Samples({"x": x}), exact_qdq=False)["y"]
    wanted = np.maximum(x.astype(kind).astype(np.float32) @ weight.astype(np.float32), 0).astype(kind)
    np.testing.assert_allclose(found, wanted.astype(np.float32), rtol=2**-7, atol=1e-6)
    assert np.array_equal(found, found.astype(kind).astype(np.float32))
