"""A graph's summary by its bytes alone: which operators, of which opset, on which types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.hazards.operators import Operator, in_exact, in_half, list_operators


def model(nodes: list[NodeProto], constants: dict[str, np.ndarray] | None = None, opset: int = 20) -> bytes:
    """``nodes`` between float32[1, 4] ``x`` and ``y``, of the opset."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=domains).SerializeToString())


def quantized(half: bool) -> bytes:
    """A quantizer and its restorer, on float16 where ``half``."""
    kind = np.float16 if half else np.float32
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    return model(nodes, {"s": np.array(0.1, kind), "z": np.array(0, np.int8)})


def test_types_are_followed_through_casts_and_quantizers() -> None:
    found = {(one.type, one.dtype, one.gives, one.opset) for one in list_operators(quantized(half=True))}
    assert found == {
        ("Cast", "float32", "float16", 20),
        ("QuantizeLinear", "float16", "int8", 20),
        ("DequantizeLinear", "int8", "float16", 20),
        ("Cast", "float16", "float32", 20),
    }


@pytest.mark.parametrize(("kind", "name"), [(TensorProto.INT4, "int4"), (TensorProto.FLOAT8E4M3FN, "float8e4m3fn")])
def test_types_of_less_than_a_byte_and_fp8_have_names(kind: int, name: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor("w", kind, [1, 4], [1, 2, -3, 4]), numpy_helper.from_array(np.float32(0.1), "s")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    (found,) = list_operators(bytes(made.SerializeToString()))
    assert (found.dtype, found.gives) == (name, "float32")


def test_equal_ones_are_counted_and_text_attributes_shown() -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], approximate="tanh"),
        helper.make_node("Gelu", ["a"], ["b"], approximate="tanh"),
        helper.make_node("FusedMatMul", ["b", "b"], ["y"], domain="com.microsoft"),
    ]
    assert list_operators(model(nodes)) == (
        Operator("Gelu", 20, "float32", "float32", ("approximate=tanh",), count=2),
        Operator("FusedMatMul", 1, "float32", "float32", domain="com.microsoft"),
    )


def test_what_an_inner_graph_computes_counts_too() -> None:
    inner = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), helper.make_node("Relu", ["h"], ["r"])],
        "inner",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT16, [1, 4])],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    found = list_operators(model(nodes, {"c": np.array(True)}))
    assert [(one.type, one.dtype, one.count) for one in found] == [
        ("If", "bool", 1),
        ("Cast", "float32", 2),
        ("Relu", "float16", 2),
    ]


def test_every_type_is_what_onnx_infers() -> None:
    """A type that is said is right: the rules are held against the library's own inference."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.ones((1, 4), np.float16))),
        helper.make_node("CastLike", ["x", "half"], ["like"]),
        helper.make_node("Add", ["like", "half"], ["sum"]),
        helper.make_node("IsNaN", ["sum"], ["nan"]),
        helper.make_node("Where", ["nan", "half", "sum"], ["chosen"]),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "us", "uz"]),
        helper.make_node("ArgMax", ["chosen"], ["best"]),
        helper.make_node("QuantizeLinear", ["x", "one"], ["plain"]),
        helper.make_node("QuantizeLinear", ["x", "one"], ["asked"], output_dtype=TensorProto.INT8),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    ]
    data = model(nodes, {"one": np.array(1, np.float32)}, opset=21)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), strict_mode=True).graph
    names = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    wanted = {helper.tensor_dtype_to_np_dtype(names[node.output[0]]).name for node in nodes}
    found = list_operators(data)
    assert {one.gives for one in found} == wanted
    assert all(one.gives for one in found)


def test_in_exact_arithmetic_there_is_no_half_and_with_weak_types_there_may_be() -> None:
    half = list_operators(quantized(half=True))
    assert not {"float16"} & {kind for one in in_exact(half) for kind in (one.dtype, one.gives)}
    plain = in_half(list_operators(quantized(half=False)))
    assert {one.dtype for one in plain if one.type == "QuantizeLinear"} == {"float16"}


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x3a\x05abc", bytes([0x38, 1])])
def test_what_is_no_model(data: bytes) -> None:
    with pytest.raises(PackageError, match="the model is no ONNX model"):
        list_operators(data)
