from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from dlx_deploy.graph import model as onnx_model
from dlx_deploy.graph.model import Index, to_bytes
from dlx_deploy.graph.quantization.layers import layer_precision, quantizable, through_qdq
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.scheme import CPU, CPU_REDUCED

from ...onnx_fixtures import Net, node, op_types, residual_net, with_qdq


def quantized(model: ModelProto, reduce_range: bool = False, exclude: tuple[str, ...] = ()) -> ModelProto:
    return with_qdq(model, CPU_REDUCED if reduce_range else CPU, exclude=exclude)


def fused(model: ModelProto, path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of the graph on this machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    return Counter(op_types(onnx.load(path)))


def test_runtime_makes_integer_kernels_of_it(tmp_path: Path) -> None:
    counts = fused(quantized(residual_net("conv")), tmp_path / "fused.onnx")
    assert (counts["QLinearConv"], counts["QLinearAdd"], counts["QGemm"]) == (4, 1, 1)
    assert counts["QuantizeLinear"] == 1
    assert counts["Conv"] == counts["DequantizeLinear"] == 0


def test_activations_are_uint8_and_weights_int8_per_channel() -> None:
    index = Index(quantized(residual_net()))
    quantize_x = next(n for n in index.model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x")
    zero, scale = index.array(quantize_x.input[2]), index.array(quantize_x.input[1])
    assert (zero.dtype, int(zero)) == (np.uint8, 85)  # -1 to 2: a third of 255
    assert float(scale) == pytest.approx(3 / 255)
    weight = index.made_by(node(index.model, "conv2/Conv").input[1], "DequantizeLinear")
    assert weight is not None
    assert index.array(weight.input[0]).dtype == np.int8
    assert index.array(weight.input[1]).shape == (8,)


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_reduce_range_leaves_a_bit_unused(reduce_range: bool, largest: int) -> None:
    index = Index(quantized(residual_net(), reduce_range))
    weights = [index.array(name) for name in index.initializers if "weight_quantized" in name]
    assert len(weights) == 4
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == largest


def test_preprocessing_and_logits_stay_in_floating_point() -> None:
    model = quantized(residual_net())
    index = Index(model)
    for name in ("scaled/Mul", "x/Add"):
        assert all(through_qdq(index, x) is None for x in node(model, name).input)
    assert [n.name for n in model.graph.node if "logits" in n.output] == ["logits/Gemm"]
    assert layer_precision(model) == dict.fromkeys(["conv1/Conv", "conv2/Conv", "conv3/Conv", "logits/Gemm"], "int8")


def test_gates_stay_in_floating_point() -> None:
    net = Net()
    x = net.conv("a", net.planes(), 1, 8)
    gated = net.add("gated", "Mul", x, net.add("gate", "Sigmoid", x))
    model = quantized(net.head(net.add("after", "Relu", gated), 8))
    index = Index(model)
    for name in ("gated/Mul", "gate/Sigmoid", "after/Relu", "pooled/GlobalAveragePool"):
        inputs = node(model, name).input
        assert all(through_qdq(index, x) in (None, "a") for x in inputs), name  # "a": the convolution's own output


def test_excluded_layers() -> None:
    assert layer_precision(quantized(residual_net(), exclude=("conv2/*",)))["conv2/Conv"] == "fp32"
    nothing = quantized(residual_net(), exclude=("*",))
    assert "QuantizeLinear" not in op_types(nothing)


def test_no_leftovers_and_the_source_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = residual_net()
    before = to_bytes(model)
    quantized(model)
    assert to_bytes(model) == before
    assert not list(tmp_path.iterdir())
    assert not caplog.records  # ONNX Runtime asks for pre-processing that the exporter has done


def test_every_process_writes_the_same_bytes() -> None:
    code = (
        "import hashlib\n"
        "from tests.onnx_fixtures import residual_net, with_qdq\n"
        "from dlx_deploy.graph.model import to_bytes\n"
        "from dlx_deploy.graph.quantization.scheme import CPU\n"
        "print(hashlib.sha256(to_bytes(with_qdq(residual_net('conv'), CPU))).hexdigest())"
    )
    root = Path(onnx_model.__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_what_follows_a_layer_is_calibrated_whatever_else_it_gives() -> None:
    net = Net()
    net.add("pool", "MaxPool", net.conv("a", net.planes(), 1, 8), kernel_shape=[2, 2], strides=[2, 2])
    net.nodes[-1].output.append("pool/where")
    model = net.head("pool", 8)
    placement = place(model, "kernels", quantizable(Index(model), set()))
    assert {"a", "x", "pooled"} <= set(placement.own)
    assert {name: pair.like for name, pair in placement.pairs.items() if pair.like} == {"pool": "a", "flat": "pooled"}


def test_with_a_reduced_range_no_sum_of_two_products_leaves_sixteen_bits() -> None:
    """What x86 without VNNI adds up (VPMADDUBSW): two products of a uint8 activation and an int8 weight."""
    index = Index(quantized(residual_net(), True))
    weights = [w for w in map(index.array, index.initializers) if w.dtype == np.int8 and w.size > 16]
    assert weights
    assert all(2 * 255 * int(np.abs(w.astype(int)).max()) <= 32767 for w in weights)
