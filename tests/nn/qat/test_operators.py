"""Each operator in torch gives what ONNX Runtime gives, and lets gradients through where numbers flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.nn.qat.attributes import Attributes
from dlx_deploy.nn.qat.graph_network import GraphNetwork
from dlx_deploy.nn.qat.operators import OPERATORS
from dlx_deploy.runtime.backends.session import open_session

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(0, 1, shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


IMAGE = floats(2, 4, 7, 6)
ROWS = floats(2, 5, 6)
NORM = [np.abs(floats(4)) + 0.5, floats(4), floats(4), np.abs(floats(4)) + 0.5]

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((name, [ROWS], {}) for name in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Identity", "Neg", "Reciprocal", "Relu")),
    *((name, [ROWS], {}) for name in ("Sigmoid", "Softplus", "Tanh", "Mish", "Sin", "Cos", "HardSigmoid", "HardSwish")),
    *((name, [np.abs(ROWS) + 0.1], {}) for name in ("Log", "Sqrt")),
    *((name, [ROWS], {}) for name in ("Gelu", "LeakyRelu", "Elu", "Softmax", "LogSoftmax", "Flatten", "Shape")),
    *((name, [ROWS, floats(5, 1)], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu")),
    *((name, [ROWS, floats(5, 1)], {}) for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *((name, [ROWS > 0, floats(5, 1) > 0], {}) for name in ("And", "Or")),
    ("Not", [ROWS > 0], {}),
    ("Gelu", [ROWS], {"approximate": "tanh"}),
    ("Div", [ints(7, -7), ints(2, 2)], {}),
    ("Pow", [np.abs(ROWS), np.array(1.5, np.float32)], {}),
    ("Where", [ROWS > 0, ROWS, np.array(0.5, np.float32)], {}),
    ("Clip", [ROWS, np.array(-0.5, np.float32), np.array(1, np.float32)], {}),
    ("Clip", [ROWS], {}),
    ("MatMul", [ROWS, floats(6, 3)], {}),
    ("Gemm", [ROWS[0], floats(3, 6), floats(3)], {"transB": 1}),
    ("Gemm", [ROWS[0], floats(5, 3), floats(3)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    *((name, [ROWS], {"keepdims": 0}) for name in ("ReduceMean", "ReduceMax", "ReduceMin")),
    ("ReduceMean", [ROWS, ints(-1)], {}),
    ("ReduceSum", [ROWS, ints(1)], {"keepdims": 0}),
    ("ReduceL2", [ROWS, ints(2)], {}),
    ("ReduceSum", [ROWS], {"noop_with_empty_axes": 1}),
    ("GlobalAveragePool", [IMAGE], {}),
    ("GlobalMaxPool", [IMAGE], {}),
    ("LayerNormalization", [ROWS, floats(6), floats(6)], {"epsilon": 1e-3}),
    ("LayerNormalization", [ROWS, floats(5, 6)], {"axis": 1}),
    ("BatchNormalization", [IMAGE, *NORM], {}),
    ("Range", [np.array(1, np.int64), np.array(9, np.int64), np.array(3, np.int64)], {}),
    ("Conv", [IMAGE, floats(6, 4, 3, 3), floats(6)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("Conv", [IMAGE, floats(6, 2, 3, 3)], {"pads": [0, 1, 2, 1], "group": 2, "dilations": [1, 2]}),
    ("Conv", [IMAGE, floats(6, 4, 1, 1)], {"strides": [2, 2]}),
    ("Conv", [IMAGE[:, :, 0], floats(6, 4, 3)], {}),
    ("ConvTranspose", [IMAGE, floats(4, 3, 2, 2), floats(3)], {"strides": [2, 2]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
    ("Resize", [IMAGE, None, None, ints(2, 4, 14, 12)], {"mode": "linear"}),
    ("Resize", [IMAGE, None, np.array([1, 1, 2, 2], np.float32)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", [IMAGE, None, None, ints(2, 4, 10, 9)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", [IMAGE, None, None, ints(2, 4, 10, 9)], {"mode": "cubic", "cubic_coeff_a": -0.75}),
    ("Cast", [ROWS], {"to": TensorProto.INT32}),
    ("Concat", [ROWS, ROWS[:, :2]], {"axis": 1}),
    ("ConstantOfShape", [ints(2, 3)], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("Expand", [floats(5, 1), ints(2, 1, 6)], {}),
    ("Flatten", [IMAGE], {"axis": -2}),
    ("Gather", [ROWS, np.array([[0, -1], [2, 1]], np.int64)], {"axis": 1}),
    ("Gather", [floats(9, 3), np.array([[0, 8], [2, -2]], np.int64)], {}),
    ("Gather", [ROWS, np.array(1, np.int64)], {"axis": 2}),
    ("Pad", [IMAGE, ints(0, 1, 2, 0, 0, 0, 1, 3), np.array(0.5, np.float32)], {}),
    ("Pad", [IMAGE, ints(0, 0, 2, 1, 0, 0, 1, 3)], {"mode": "reflect"}),
    ("Reshape", [ROWS, ints(0, -1)], {}),
    ("Shape", [IMAGE], {"start": 1, "end": 3}),
    ("Slice", [ROWS, ints(1, -3), ints(4, 999), ints(1, 2), ints(2, 1)], {}),
    ("Slice", [ROWS, ints(-1), ints(-999), ints(1), ints(-2)], {}),
    ("Split", [ROWS, ints(2, 3)], {"axis": 1}),
    ("Split", [ROWS], {"axis": 2, "num_outputs": 3}),
    ("Squeeze", [ROWS[:1], ints(0)], {}),
    ("Squeeze", [ROWS[:1]], {}),
    ("Transpose", [ROWS], {"perm": [1, 2, 0]}),
    ("Transpose", [ROWS], {}),
    ("Unsqueeze", [ROWS, ints(0, -1)], {}),
]  # fmt: skip


def graph_of(operator: str, given: list[Any], attributes: dict[str, Any]) -> onnx.ModelProto:
    """The node alone; its first input is the graph's, the rest are constants."""
    outputs = {"Split": 3 if "num_outputs" in attributes else 2}.get(operator, 1)
    names = [f"in{i}" if value is not None else "" for i, value in enumerate(given)]
    node = helper.make_node(operator, names, [f"out{i}" for i in range(outputs)], name="m/Node", **attributes)
    kind = helper.np_dtype_to_tensor_dtype(given[0].dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("in0", kind, given[0].shape)],
        [onnx.ValueInfoProto(name=f"out{i}") for i in range(outputs)],
        [numpy_helper.from_array(v, n) for v, n in zip(given[1:], names[1:], strict=True) if v is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(("operator", "given", "attributes"), CASES, ids=[f"{n}{i}" for i, (n, *_) in enumerate(CASES)])
def test_torch_gives_what_onnx_runtime_gives(operator: str, given: list[Any], attributes: dict[str, Any]) -> None:
    model = graph_of(operator, given, attributes)
    names = [value.name for value in model.graph.output]
    expected = open_session(to_bytes(model), exact_qdq=True, threads=1).run(names, {"in0": given[0]})
    network = GraphNetwork(model)
    first = torch.from_numpy(given[0].copy()).requires_grad_(given[0].dtype == np.float32)
    answer = network(first)
    found = answer if isinstance(answer, tuple) else (answer,)
    for theirs, ours in zip(expected, found, strict=True):
        assert str(ours.dtype).removeprefix("torch.") == str(theirs.dtype)
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-5)
    if found[0].requires_grad:
        found[0].sum().backward()
        assert first.grad is not None
        assert first.grad.isfinite().all()


def test_every_operator_is_compared() -> None:
    assert {operator for operator, *_ in CASES} == set(OPERATORS)


@pytest.mark.parametrize(
    ("operator", "given", "attributes", "message"),
    [
        ("Hardmax", [ROWS], {}, r"qat: node 'm/Node' \(Hardmax\): its operator is not among what learns in torch here"),
        ("Conv", [IMAGE, floats(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER"}, r"\(Conv\): auto_pad = SAME_UPPER is not"),
        ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, r"not the same on both sides"),
        ("Pad", [IMAGE, ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "wrap"}, r"padding by wrap is not"),
        ("Resize", [IMAGE, None, None, ints(2, 8, 7, 6)], {}, r"other axes than the spatial ones"),
        ("Resize", [IMAGE, None, None, ints(2, 4, 14, 6)], {"mode": "linear",
         "coordinate_transformation_mode": "asymmetric"}, r"resizing by linear at asymmetric is not"),
    ],
)  # fmt: skip
def test_what_torch_has_not_is_said_with_its_node(
    operator: str, given: list[Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageFailed, match=message):
        GraphNetwork(graph_of(operator, given, attributes))(torch.from_numpy(given[0]))


def test_attributes_have_types() -> None:
    node = helper.make_node("Gemm", ["a"], ["b"], alpha=0.5, transB=1, mode="edge", axes=[1, 2])
    attributes = Attributes.of(node)
    assert (attributes.number("alpha", 1.0), attributes.integer("transB", 0)) == (0.5, 1)
    assert (attributes.text("mode", ""), attributes.integers("axes")) == ("edge", [1, 2])
    assert (attributes.number("beta", 1.0), attributes.integers("pads")) == (1.0, None)
