"""What stands between an INT8 product and the cut of its result into queries, keys and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.passes.fence import FENCE
from dlx_deploy.graph.quantization.quantize import QuantizationRequest

from ...arrays import quantize_model, run_onnx
from ...onnx_fixtures import Net, images

TOKENS, WIDTH, HEADS = 8, 8, 2


def attention(cut: str = "Gather", computed: bool = False, bias: bool = True) -> ModelProto:
    """Rows of an image as tokens, attention written by hand, a head. ``computed``: the shape of the keys is."""
    net = Net(opset=20)
    for name, shape in {
        "tokens.shape": [-1, TOKENS, WIDTH],
        "three.shape": [-1, TOKENS, 3, HEADS, WIDTH // HEADS],
        "keys.shape": [0, HEADS, TOKENS, WIDTH // HEADS],
        "planes.shape": [-1, TOKENS, WIDTH, 1],
        "0": 0,
        "1": 1,
        "2": 2,
        "ones": [1, 1, 1],
        "axis": [0],
    }.items():
        net.constant(name, np.array(shape, np.int64))
    net.constant("scale", np.array(0.5, np.float32))
    tokens = net.add("tokens", "Reshape", net.planes(), "tokens.shape")
    three = net.add("three", "MatMul", tokens, net.weight("three.weight", WIDTH, 3 * WIDTH))
    if bias:
        three = net.add("biased", "Add", net.weight("three.bias", 3 * WIDTH), three)
    apart = net.add("moved", "Transpose", net.add("apart", "Reshape", three, "three.shape"), perm=[2, 0, 3, 1, 4])
    if cut == "Gather":
        q, k, v = (net.add(name, "Gather", apart, str(i), axis=0) for i, name in enumerate("qkv"))
    else:
        net.add("q1", "Split", apart, "ones", axis=0)
        net.nodes[-1].output.extend(["k1", "v1"])
        q, k, v = (net.add(name, "Squeeze", f"{name}1", "axis") for name in "qkv")
    if computed:
        k = net.add("k.again", "Reshape", k, net.add("k.shape", "Shape", k))
    turned = net.add("turned", "Transpose", k, perm=[0, 1, 3, 2])
    scores = net.add("scores", "MatMul", net.add("scaled.q", "Mul", q, "scale"), turned)
    mixed = net.add("mixed", "MatMul", net.add("softmax", "Softmax", scores, axis=-1), v)
    joined = net.add("joined", "Transpose", mixed, perm=[0, 2, 1, 3])
    return net.head(net.add("planes.again", "Reshape", joined, "planes.shape"), TOKENS)


def quantized(model: ModelProto, folder: Path, half: bool = True, exclude: tuple[str, ...] = ()) -> ModelProto:
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    request = QuantizationRequest("tensorrt", half=half, exclude=exclude)
    quantize_model(folder / "m.onnx", folder / "q.onnx", images(8), request)
    return load(folder / "q.onnx")


@pytest.mark.parametrize("cut", ["Gather", "Split"])
@pytest.mark.parametrize(("half", "bias"), [(True, True), (False, True), (True, False)])
def test_a_product_that_is_cut_for_attention_is_fenced(cut: str, half: bool, bias: bool, tmp_path: Path) -> None:
    model = quantized(attention(cut, bias=bias), tmp_path, half)
    index, fenced = Index(model), "biased" if bias else "three"
    (fence,) = (node for node in model.graph.node if node.op_type == "Clip")
    assert (fence.name, list(fence.output)) == (f"{fenced}/Clip", [f"{fenced}/whole"])
    assert [node.name for node in index.readers(fenced)] == [fence.name]
    assert [node.name for node in index.readers(f"{fenced}/whole")] == ["apart/Reshape"]
    kind = np.finfo(np.float16 if half else np.float32)
    assert [float(index.array(name)) for name in fence.input[1:]] == [float(kind.min), float(kind.max)]
    assert {index.initializers[n].data_type for n in fence.input[1:]} == {
        TensorProto.FLOAT16 if half else TensorProto.FLOAT
    }
    answers = run_onnx(model.SerializeToString(), images(8), exact_qdq=False)
    fence.op_type, fence.input[:] = "Identity", fence.input[:1]
    np.testing.assert_array_equal(answers, run_onnx(model.SerializeToString(), images(8), exact_qdq=False))


def test_what_is_not_cut_into_three_is_left_as_it_is(tmp_path: Path) -> None:
    for model in (
        quantized(attention(computed=True), tmp_path),  # as torch writes scaled_dot_product_attention
        quantized(attention(), tmp_path, exclude=("three",)),  # it is no INT8 product
        attention(),
    ):
        before = model.SerializeToString()
        assert FENCE.run(load(before)).SerializeToString() == before
        assert not [node for node in model.graph.node if node.op_type == "Clip"]
