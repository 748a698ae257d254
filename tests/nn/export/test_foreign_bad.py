"""ONNX that cannot be the teacher, each kind as one small file: what is wrong is said, in seconds, with code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.export.foreign import check_rows, read_foreign

from ...foreign_models import CLASSES, SIDE, foreign_net, saved
from .test_foreign import adopted, spec

FLOAT = TensorProto.FLOAT
Spoil = Callable[[ModelProto], None]


def constant(model: ModelProto, name: str, value: object) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def instead_of_relu(model: ModelProto, *nodes: NodeProto) -> None:
    """``nodes`` read ``conv`` and give ``relu``."""
    before = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([before[0], *nodes, *before[2:]])


def of_type(kind: int) -> Spoil:
    def spoil(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = kind

    return spoil


def with_operator(operator: str, domain: str = "") -> Spoil:
    def spoil(model: ModelProto) -> None:
        model.graph.node[1].op_type, model.graph.node[1].domain = operator, domain

    return spoil


def bfloat16(model: ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [1], [1.0]))


def loop(model: ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "v"], ["v2"]), helper.make_node("Identity", ["c"], ["c2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v")],
        [value("c2", TensorProto.BOOL, []), value("v2")],
    )
    constant(model, "trips", np.int64(2))
    constant(model, "go", True)
    instead_of_relu(model, helper.make_node("Loop", ["trips", "go", "conv"], ["relu"], "the-loop", body=body))


def scan(model: ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["s2"]), helper.make_node("Identity", ["e"], ["e2"])],
        "body",
        [value("s"), value("e")],
        [value("s2"), value("e2")],
    )
    constant(model, "start", np.zeros((4, SIDE, SIDE), np.float32))
    node = helper.make_node("Scan", ["start", "conv"], ["end", "relu"], "the-scan", body=body, num_scan_inputs=1)
    instead_of_relu(model, node)


def value(name: str, kind: int = FLOAT, dims: list[int] | None = None) -> object:
    return helper.make_tensor_value_info(name, kind, dims)


def sequence(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["logits_"], ["all"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_sequence_value_info("all", FLOAT, None))


def optional(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Optional", ["logits_"], ["maybe"]))
    model.graph.output[0].Clear()
    model.graph.output[0].name = "maybe"
    model.graph.output[0].type.optional_type.elem_type.tensor_type.elem_type = FLOAT


def strings(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("ArgMax", ["logits_"], ["best"], axis=1, keepdims=0))
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [CLASSES], [b"a"] * CLASSES))
    model.graph.node.append(helper.make_node("Gather", ["words", "best"], ["label"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.STRING, ["n"]))


def without(ends: Callable[[GraphProto], object]) -> Spoil:
    def spoil(model: ModelProto) -> None:
        del ends(model.graph)[:]  # type: ignore[index]

    return spoil


def newer_format(model: ModelProto) -> None:
    model.ir_version = 99


def huge(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 100_000


def dangling(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def twice(model: ModelProto) -> None:
    model.graph.node.append(model.graph.node[1])


def short(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0"


def nan_beside(model: ModelProto) -> None:
    """A bias that is added behind a product, as torch exports a linear layer on tokens."""
    last = model.graph.node[-1]
    values = np.zeros(10, np.float32)
    values[3] = np.nan
    model.graph.initializer.append(numpy_helper.from_array(values, "offset"))
    answer = last.output[0]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "offset"], [answer], name="shift"))


def not_finite(number: float, constant: bool = False) -> Spoil:
    """Of the last layer's bias two values, which a node gives where ``constant``."""

    def spoil(model: ModelProto) -> None:
        bias = numpy_helper.from_array(np.array([0] * (CLASSES - 2) + [number] * 2, np.float32), "head.bias")
        model.graph.initializer[2].CopyFrom(bias)
        if constant:
            del model.graph.initializer[2]
            model.graph.node.insert(0, helper.make_node("Constant", [], ["head.bias"], value=bias))

    return spoil


def not_defined(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Log"


def recursive(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    again = helper.make_node("Again", ["a"], ["b"], domain="own")
    model.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [again], opsets))
    model.opset_import.append(opsets[1])
    model.ir_version = 8
    with_operator("Again", "own")(model)


def no_batch(model: ModelProto) -> None:
    model.CopyFrom(foreign_net(batch=1))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_operator("Relu", "my.ops"), r"has custom operators: my\.ops\.Relu; rule: those of ONNX's own"),
        (
            with_operator("MatMulNBits", "com.microsoft"),
            r"is quantized already \(MatMulNBits\); give the float32 model",
        ),
        (with_operator("QuantizeLinear"), r"is quantized already \(QuantizeLinear\)"),
        (with_operator("RandomNormalLike"), r"draws random numbers \(RandomNormalLike\).*\.eval\(\) in PyTorch"),
        (with_operator("NoSuch"), r"net\.onnx is no valid ONNX model: No Op registered for NoSuch"),
        (with_operator("Gelu"), r"is no valid ONNX model: No Op registered for Gelu with domain_version of 17"),
        (bfloat16, r"is in bfloat16; give the float32 model"),
        (of_type(TensorProto.UINT8), r"reads x uint8\[N, 1, 8, 8\]; .*without its own preprocessing of bytes"),
        (of_type(TensorProto.INT64), r"reads x int64\[N, 1, 8, 8\]; rule: images, float32"),
        (loop, r"it has control flow \(Loop, node '.*'\) that depends on its input"),
        (scan, r"it has control flow \(Scan, node '.*'\) that depends on its input"),
        (sequence, r"gives all no tensor\[\?\], and the data ask for float32\[N, 10\]"),
        (optional, r"gives maybe no tensor\[\?\], and the data ask for"),
        (strings, r"gives label string\[N\], and the data ask for"),
        (without(lambda graph: graph.output), r"net\.onnx: gives no output; export it with its logits as one"),
        (without(lambda graph: graph.input), r"has no input; rule: one, of images"),
        (newer_format, r"is of ONNX's file format 99 \(ir_version\); rule: at most \d+"),
        (huge, r"reads x float32\[N, 1, 100000, 8\], a side of 100000; rule: at most 16384 pixels a side"),
        (no_batch, r"reads x float32\[N, 2, 8, 8\], and the images are 8 x 8 of 1 channels"),
        (dangling, r"is no valid ONNX model: .*input 'nowhere' of node: .* is not output of any previous nodes"),
        (twice, r"is no valid ONNX model: .*'relu' has been used as output names multiple times"),
        (short, r"is no valid ONNX model: .*conv\.weight\) raw_data size \(1 bytes\) is too small"),
        (recursive, r"is no valid ONNX model: Cycle detected in model-local function references"),
        (
            not_finite(np.nan),
            r"net\.onnx: 'head\.bias', which 'logits_' \(Gemm\) reads, has 2 of 10 values that are no finite numbers "
            r"\(the first: nan\); rule: finite weights; export the network again",
        ),
        (
            nan_beside,
            r"'offset', which .* \(Add\) reads, has 1 of 10 values that are no finite numbers \(the first: nan\)",
        ),
        (not_finite(np.inf), r"2 of 10 values that are no finite numbers \(the first: inf\)"),
        (not_finite(-np.inf, constant=True), r"'logits_' \(Gemm\) reads, has 2 of 10 .* \(the first: -inf\)"),
        (not_defined, r"net\.onnx answers NaN to noise: it computes what has no value \(a logarithm of a negative"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, spoil: Spoil, message: str) -> None:
    model = foreign_net()
    spoil(model)
    with pytest.raises(ConfigError, match=message):
        check_rows(
            read_foreign(saved(tmp_path / "net.onnx", model), None, spec(), "").adopted(spec(), None, ()), spec(), 5
        )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ((b"AveragePool", b"Average\xffool"), r"net\.onnx is no valid ONNX model: a name in it is no UTF-8"),
        ((b"conv.weightJ", b"conv.weight\x4f"), r"net\.onnx: no ONNX model \(.*\); .*export it again"),
    ],
)
def test_damaged_bytes(tmp_path: Path, damage: tuple[bytes, bytes], message: str) -> None:
    content = foreign_net().SerializeToString()
    assert damage[0] in content
    (tmp_path / "net.onnx").write_bytes(content.replace(*damage))
    with pytest.raises(ConfigError, match=message):
        read_foreign(tmp_path / "net.onnx", None, spec(), "").adopted(spec(), None, ())


@pytest.mark.parametrize(
    "content", [b"", b"these are words, not a model\n" * 9, foreign_net().SerializeToString()[:-7]]
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"net\.onnx: no ONNX model \(.*\); export it again"):
        read_foreign(tmp_path / "net.onnx", None, spec(), "")


def weights_as_inputs(model: ModelProto) -> None:
    model.ir_version = 3
    model.graph.input.extend(value(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer)


def own_function(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inside = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("own", "Positive", ["a"], ["b"], [inside], opsets[:1]))
    model.opset_import.append(opsets[1])
    model.ir_version = 8
    with_operator("Positive", "own")(model)


def fixed_branch(model: ModelProto) -> None:
    def branch(operator: str) -> GraphProto:
        return helper.make_graph([helper.make_node(operator, ["conv"], [operator])], operator, [], [value(operator)])

    constant(model, "yes", True)
    branches = {"then_branch": branch("Relu"), "else_branch": branch("Neg")}
    instead_of_relu(model, helper.make_node("If", ["yes"], ["relu"], **branches))


@pytest.mark.parametrize("spoil", [weights_as_inputs, own_function, fixed_branch])
def test_what_only_looks_odd_is_used(tmp_path: Path, spoil: Spoil) -> None:
    model = foreign_net()
    plain = adopted(tmp_path, model, spec())
    spoil(model)
    assert len(adopted(tmp_path, model, spec())) < 1.2 * len(plain)


@pytest.mark.parametrize("version", [7, 26])
def test_the_oldest_and_the_newest_operator_set(tmp_path: Path, version: int) -> None:
    adopted(tmp_path, foreign_net(version), spec(20))


def test_a_sigmoid_at_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adopted(tmp_path, foreign_net(tail="Sigmoid"), spec())
    assert "answers probabilities, and they are taken for logits" in caplog.text
