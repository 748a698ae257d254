"""Dense answers stay in floating point where integers pass from kernel to kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.layers import dense_heads
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
from dlx_deploy.graph.quantization.quantize import QuantizationRequest

from ...arrays import quantize_model, run_onnx
from ...onnx_fixtures import Net, images, residual_net


def two_heads() -> ModelProto:
    """Dense logits: one head on half the resolution, resized to the other's and added to it, as in LRASPP."""
    net = Net()
    start = net.add("relu1", "Relu", net.conv("conv1", net.planes(), 1, 8))
    half = net.add("relu2", "Relu", net.conv("conv2", start, 8, 8, strides=[2, 2]))
    high = net.conv("high", half, 8, 3, kernel=1)
    low = net.conv("low", start, 8, 3, kernel=1)
    wide = net.add("wide", "Resize", high, "", net.constant("twice", np.array([1, 1, 2, 2], np.float32)))
    net.add("logits", "Add", low, wide)
    return net.model(3, (8, 8))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.onnx"
    onnx.save(two_heads(), path)
    return path


def test_the_heads_of_dense_answers() -> None:
    assert dense_heads(Index(two_heads())) == {"low/Conv", "high/Conv", "wide/Resize", "logits/Add"}
    assert dense_heads(Index(residual_net())) == set()  # behind its answers lies a Gemm


@pytest.mark.parametrize("given", [None, "high/Conv"])
def test_heads_are_no_integers_unless_a_plan_says_so(source: Path, given: str | None, tmp_path: Path) -> None:
    plan = QuantizationPlan(schema=1, layers={given: LayerPlan(precision="int8")} if given else {})
    report = quantize_model(source, tmp_path / "q.onnx", images(), QuantizationRequest("cpu", given=plan))
    heads = {"low/Conv": "fp32", "high/Conv": "int8" if given else "fp32"}
    assert report.layers == {"conv1/Conv": "int8", "conv2/Conv": "int8", **heads}
    index = Index(load(tmp_path / "q.onnx"))
    assert index.made_by("logits", "Add") is not None
    again = QuantizationRequest("cpu", given=report.plan)
    assert quantize_model(source, tmp_path / "again.onnx", images(), again).layers == report.layers
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()


def test_answers_keep_their_resolution(source: Path, tmp_path: Path) -> None:
    quantize_model(source, tmp_path / "q.onnx", images(), QuantizationRequest("cpu"))
    expected, answers = (run_onnx(path, images(), False) for path in (source, tmp_path / "q.onnx"))
    assert len(np.unique(answers)) > 256
    assert np.abs(answers - expected).max() < 0.05 * np.abs(expected).max()


def test_a_runtime_that_reads_integers_alone_may_have_them_everywhere(source: Path, tmp_path: Path) -> None:
    report = quantize_model(source, tmp_path / "q.onnx", images(), QuantizationRequest("tensorrt"))
    assert set(report.layers.values()) == {"int8"}
    assert Index(load(tmp_path / "q.onnx")).made_by("logits", "Add") is not None


def anchors() -> ModelProto:
    """An answer for each cell of two maps, as detectors give it: moved, listed, one after the other, squashed."""
    net = Net()
    start = net.add("relu1", "Relu", net.conv("conv1", net.planes(), 1, 8))
    half = net.add("relu2", "Relu", net.conv("conv2", start, 8, 8, strides=[2, 2]))
    lists = []
    for name, plane in (("large", start), ("small", half)):
        last = net.add(f"{name}.last", "Transpose", net.conv(name, plane, 8, 3, kernel=1), perm=[0, 2, 3, 1])
        lists.append(net.add(f"{name}.list", "Reshape", last, net.constant(f"{name}.shape", np.array([0, -1, 3]))))
    net.add("logits", "Sigmoid", net.add("all", "Concat", *lists, axis=1))
    return net.model(80, (3,))


def test_answers_that_are_moved_and_squashed_are_no_integers_either(tmp_path: Path) -> None:
    onnx.save(anchors(), tmp_path / "source.onnx")
    report = quantize_model(tmp_path / "source.onnx", tmp_path / "q.onnx", images(), QuantizationRequest("cpu"))
    assert report.layers == {
        "conv1/Conv": "int8", "conv2/Conv": "int8", "large/Conv": "fp32", "small/Conv": "fp32",
    }  # fmt: skip
    assert len(np.unique(run_onnx(tmp_path / "q.onnx", images(), False))) > 256
