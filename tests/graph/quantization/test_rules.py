from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.blocks import int4_tensor
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.planning import make_plan
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.request import QuantizationRequest
from dlx_deploy.graph.quantization.rules import check_tensorrt_rules
from dlx_deploy.graph.quantization.scheme import TENSORRT
from dlx_deploy.graph.quantization.writer import write_qdq

from ...onnx_fixtures import Net, node, product_net, residual_net, with_qdq


def int4() -> ModelProto:
    """``first`` and ``head`` with INT4 weights in blocks of 32."""
    model = load(product_net())
    setting = QuantizationRequest("tensorrt", int8=False, block_size=32).scheme
    assert setting is not None
    placement = place(model, setting.placement, quantizable(Index(model), set()))
    plan = make_plan(model, setting, placement, Ranges(), QuantizationPlan(schema=1), "minmax")
    return write_qdq(model, setting, placement, plan)


@functools.cache
def clean() -> ModelProto:
    return with_qdq(residual_net("conv"), TENSORRT, (-1.0, 1.0))


def store(model: ModelProto, name: str, values: np.ndarray) -> str:
    for tensor in [t for t in model.graph.initializer if t.name == name]:
        model.graph.initializer.remove(tensor)
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def insert(model: ModelProto, before: str, op_type: str, inputs: list[str], output: str, **attributes: int) -> str:
    names = [n.name for n in model.graph.node]
    made = helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}", **attributes)
    model.graph.node.insert(names.index(before), made)
    return output


def shifted(model: ModelProto) -> None:
    store(model, "relu1/zero_point", np.array(3, np.int8))


def shifted_weights(model: ModelProto) -> None:
    store(model, "conv2.weight/zero_point", np.array([0, 0, 0, 1, 0, 0, 0, 0], np.int8))


def uint8(model: ModelProto) -> None:
    store(model, "relu1/zero_point", np.array(0, np.uint8))


def no_zero_point(model: ModelProto) -> None:
    del node(model, "relu1/QuantizeLinear").input[2]


def computed_scale(model: ModelProto) -> None:
    name = insert(model, "relu1/QuantizeLinear", "Identity", ["relu1/scale"], "computed")
    node(model, "relu1/QuantizeLinear").input[1] = name


def zero_scale(model: ModelProto) -> None:
    store(model, "relu1/scale", np.array(0, np.float32))


def nan_scale(model: ModelProto) -> None:
    store(model, "conv2.weight/scale", np.array([1, 1, 1, np.nan, 1, 1, 1, 1], np.float32))


def per_channel_activation(model: ModelProto) -> None:
    store(model, "relu1/scale", np.ones(8, np.float32))
    store(model, "relu1/zero_point", np.zeros(8, np.int8))


def conv_axis(model: ModelProto) -> None:
    node(model, "conv2.weight/DequantizeLinear").attribute[0].i = 1


def gemm_axis(model: ModelProto) -> None:
    node(model, "logits/Gemm").attribute[0].i = 0


def no_axis(model: ModelProto) -> None:
    del node(model, "conv2.weight/DequantizeLinear").attribute[:]


def int32_bias(model: ModelProto) -> None:
    store(model, "b", np.zeros(8, np.int32))
    store(model, "b.scale", np.array(1, np.float32))
    node(model, "conv2/Conv").input[2] = insert(model, "conv2/Conv", "DequantizeLinear", ["b", "b.scale"], "bias")


def unfolded(model: ModelProto) -> None:
    store(model, "w", np.ones((8, 8, 3, 3), np.float32))
    inputs = ["w", "conv2.weight/scale", "conv2.weight/zero_point"]
    quantized = insert(model, "conv2.weight/DequantizeLinear", "QuantizeLinear", inputs, "w.q", axis=0)
    node(model, "conv2.weight/DequantizeLinear").input[0] = quantized


def clipped(model: ModelProto) -> None:
    name = insert(model, "conv2.weight/DequantizeLinear", "Clip", ["conv2.weight/quantized"], "clipped")
    node(model, "conv2.weight/DequantizeLinear").input[0] = name


def int8_between(model: ModelProto) -> None:
    name = insert(model, "relu1/DequantizeLinear", "Identity", ["relu1/quantized"], "between")
    node(model, "relu1/DequantizeLinear").input[0] = name


def double_weight(model: ModelProto) -> None:
    store(model, "conv1.bias", np.zeros(8, np.float64))


def double_cast(model: ModelProto) -> None:
    insert(model, "logits/Gemm", "Cast", ["flat"], "wide", to=TensorProto.DOUBLE)


def both_inputs_of_a_sum(model: ModelProto) -> None:
    inputs = ["conv3", "relu1/scale", "relu1/zero_point"]
    quantized = insert(model, "sum/Add", "QuantizeLinear", inputs, "conv3.q")
    restored = insert(model, "sum/Add", "DequantizeLinear", [quantized, *inputs[1:]], "conv3.dq")
    node(model, "sum/Add").input[0] = restored


def uint8_into_transpose(model: ModelProto) -> None:
    insert(model, "float/Cast", "Transpose", ["images"], "turned")


def fused_operator(model: ModelProto) -> None:
    node(model, "conv2/Conv").op_type = "QLinearConv"


def foreign_operator(model: ModelProto) -> None:
    node(model, "relu2/Relu").domain = "com.microsoft"


def old_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 12


BROKEN: list[tuple[Callable[[ModelProto], None], str]] = [
    (shifted, r"zero-point: node 'relu1/QuantizeLinear' \(QuantizeLinear\): its zero point is not 0 \(up to 3\)"),
    (shifted_weights, r"zero-point: node 'conv2.weight/DequantizeLinear'"),
    (uint8, "int8-only: node 'relu1/QuantizeLinear' .* it quantizes to uint8; only int8"),
    (no_zero_point, "int8-only: node 'relu1/QuantizeLinear' .* uint8"),
    (computed_scale, "constant-parameters: node 'relu1/QuantizeLinear'"),
    (zero_scale, r"scale: node 'relu1/QuantizeLinear' .* a scale is 0\.0; all must be finite and above 0"),
    (nan_scale, "scale: node 'conv2.weight/DequantizeLinear' .* a scale is nan"),
    (
        per_channel_activation,
        r"per-tensor: node 'relu1/QuantizeLinear' .* its scale for an activation has the shape \[8\]; it must be a",
    ),
    (conv_axis, r"weight-axis: node 'conv2/Conv' \(Conv\): its weight scales lie along axis 1; .* are axis 0"),
    (no_axis, r"weight-axis: node 'conv2/Conv' \(Conv\): its weight scales lie along axis 1; .* are axis 0"),
    (gemm_axis, r"weight-axis: node 'logits/Gemm' \(Gemm\): .* axis 0; .* are axis 1"),
    (int32_bias, "bias: node 'bias/DequantizeLinear' .* dequantizes an int32 constant"),
    (unfolded, "folded-weights: node 'w.q/QuantizeLinear' .* store the int8 values"),
    (clipped, "int8-constants: node 'clipped/Clip' .* reads the int8 constant 'conv2.weight/quantized'"),
    (int8_between, "int8-activations: node 'between/Identity' .* reads int8 from 'relu1/QuantizeLinear'"),
    (double_weight, "float64: tensor 'conv1.bias'"),
    (double_cast, "float64: node 'wide/Cast'"),
    (both_inputs_of_a_sum, "residual-sum: node 'sum/Add' .* quantize the identity alone"),
    (uint8_into_transpose, r"uint8-input: node 'turned/Transpose' .* reads the uint8 input 'images'; only Cast"),
    (fused_operator, r"operators: node 'conv2/Conv' .* ai\.onnx\.QLinearConv is not supported"),
    (foreign_operator, r"operators: node 'relu2/Relu' .* com\.microsoft\.Relu is not supported"),
    (old_opset, "opset: the graph is at opset 12; per-channel scales need 13"),
]


def test_mixed_types_need_a_cast() -> None:
    model = load(clean())
    bias = next(n for n in model.graph.node if n.name == "conv2/Conv").input[2]
    store(model, bias, np.zeros(8, np.float16))
    broken = check_tensorrt_rules(model)
    assert broken == ["mixed-types: node 'conv2/Conv' (Conv): its inputs are float and float16; cast them to one type"]


def test_a_bfloat16_graph_with_float32_weights() -> None:
    """What an exporter writes that folds batch norm after it has cast."""
    kind = TensorProto.BFLOAT16
    ends = [helper.make_tensor_value_info(name, kind, [1, 2, 4, 4]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv/Conv")
    model = helper.make_model(
        helper.make_graph([conv], "g", ends[:1], ends[1:], [weight]), opset_imports=[helper.make_opsetid("", 22)]
    )
    broken = check_tensorrt_rules(model)
    assert broken == ["mixed-types: node 'conv/Conv' (Conv): its inputs are bfloat16 and float; cast them to one type"]


def test_attention_that_splits_its_heads_itself() -> None:
    names = ("q", "k", "v", "y")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8]) for name in names]
    attention = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="a/Attention", q_num_heads=2, kv_num_heads=2)
    model = helper.make_model(
        helper.make_graph([attention], "g", ends[:3], ends[3:]), opset_imports=[helper.make_opsetid("", 23)]
    )
    assert any(text.startswith("attention: node 'a/Attention'") for text in check_tensorrt_rules(model))


def test_a_clean_graph_has_no_findings() -> None:
    assert check_tensorrt_rules(clean()) == []
    assert check_tensorrt_rules(residual_net()) == []  # nothing quantized, nothing wrong


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.uint64, np.bool_])
def test_constants_of_other_types_are_no_finding(kind: type[np.generic]) -> None:
    model = load(clean())
    store(model, "table", np.ones(3, kind))
    assert check_tensorrt_rules(model) == []


def test_every_input_is_looked_at() -> None:
    model = load(clean())
    model.graph.input.insert(0, helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    uint8_into_transpose(model)
    assert [text.split(" (")[0] for text in check_tensorrt_rules(model)] == ["uint8-input: node 'turned/Transpose'"]


def test_types_that_an_operator_keeps_apart_are_no_mix() -> None:
    """Statistics of a batch norm may be of another type than what it normalises and scales."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 2, 4, 4]) for name in "xy")
    kinds = {"scale": np.float16, "shift": np.float16, "mean": np.float32, "var": np.float32}
    weights = [numpy_helper.from_array(np.ones(2, kind), name) for name, kind in kinds.items()]
    norm = helper.make_node("BatchNormalization", ["x", *kinds], ["y"], name="norm/BatchNormalization")
    graph = helper.make_graph([norm], "g", [x], [y], weights)
    assert check_tensorrt_rules(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])) == []


@pytest.mark.parametrize(("breaks", "finding"), BROKEN, ids=[b.__name__ for b, _ in BROKEN])
def test_each_rule_finds_what_breaks_it(breaks: Callable[[ModelProto], None], finding: str) -> None:
    model = load(clean())
    breaks(model)
    broken = check_tensorrt_rules(model)
    rule = finding.split(":")[0]
    assert any(re.match(finding, text) for text in broken), broken
    assert {text.split(":")[0] for text in broken} == {rule}


def test_weights_behind_a_layer_in_floating_point_are_looked_at() -> None:
    model = with_qdq(residual_net(), TENSORRT, (-1.0, 1.0), ("conv1/*",))
    gemm_axis(model)
    assert [text.split(" (")[0] for text in check_tensorrt_rules(model)] == ["weight-axis: node 'logits/Gemm'"]


def test_attention_that_reads_one_tensor_twice() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 8]) for name in ("q", "k", "v", "y")]
    for inputs, count in ((["q", "k", "k"], 1), (["q", "q", "q"], 1), (["q", "k", "v"], 0)):
        attention = helper.make_node("Attention", inputs, ["y"], name="a/Attention")
        graph = helper.make_graph([attention], "g", ends[:3], ends[3:])
        broken = check_tensorrt_rules(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
        assert sum("q, k and v are not three tensors; put an Identity" in text for text in broken) == count
        assert len(broken) == count


def test_a_transposed_convolution_whose_input_alone_is_quantized() -> None:
    net = Net()
    net.constant("s", np.array(0.1, np.float32))
    net.constant("z", np.array(0, np.int8))
    x = net.add("x.dq", "DequantizeLinear", net.add("x.q", "QuantizeLinear", net.planes(), "s", "z"), "s")
    net.constant("up", np.ones((1, 8, 2, 2), np.float32))
    model = net.head(net.add("wide", "ConvTranspose", x, "up", strides=[2, 2]), 8)
    assert [text.split(" (")[0] for text in check_tensorrt_rules(model) if "wide" in text] == [
        "transposed-convolution: node 'wide/ConvTranspose'"
    ]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quantized_transposed_convolution(axis: int) -> None:
    net = Net()
    net.constant("x.scale", np.array(0.1, np.float32))
    net.constant("x.zero", np.array(0, np.int8))
    x = net.add(
        "x.dq", "DequantizeLinear", net.add("x.q", "QuantizeLinear", net.planes(), "x.scale", "x.zero"), "x.scale"
    )
    net.constant("up", np.ones((1, 8, 2, 2), np.int8))
    net.constant("up.scale", np.ones((1, 8)[axis], np.float32))
    net.add("up.weight", "DequantizeLinear", "up", "up.scale", axis=axis)
    model = net.head(net.add("wide", "ConvTranspose", x, "up.weight", strides=[2, 2]), 8)
    broken = [text for text in check_tensorrt_rules(model) if "wide" in text]
    assert (
        "transposed-convolution: node 'wide/ConvTranspose' (ConvTranspose): it is quantized; " in "".join(broken)[:90]
    )
    assert len(broken) == 1  # one scale along axis 0 is per tensor, and axis 1 is right


def test_a_constant_that_is_quantized_hides_no_activation_behind_it() -> None:
    model = load(clean())
    unfolded(model)  # before conv2
    store(model, "flat/scale", np.ones(8, np.float32))
    broken = [text.split(" (")[0] for text in check_tensorrt_rules(model)]
    assert "folded-weights: node 'w.q/QuantizeLinear'" in broken
    assert "per-tensor: node 'flat/QuantizeLinear'" in broken


def test_a_sum_without_a_convolution_may_be_quantized() -> None:
    model = load(clean())
    insert(model, "relu3/Relu", "Add", ["relu1/dequantized", "relu2/dequantized"], "more")
    assert check_tensorrt_rules(model) == []


def test_operators_without_a_known_signature_are_left_to_the_other_rules() -> None:
    model = load(clean())
    node(model, "relu2/Relu").op_type = "Gelu"  # of opset 20, in a graph of opset 17
    store(model, "half", np.ones(8, np.float16))
    insert(model, "relu3/Relu", "Add", ["sum", "half"], "more")
    node(model, "more/Add").domain = "com.microsoft"
    assert [text.split(" (")[0] for text in check_tensorrt_rules(model)] == ["operators: node 'more/Add'"]


def test_int4_weights_in_whole_blocks_of_inputs_are_clean() -> None:
    assert check_tensorrt_rules(int4()) == []


@pytest.mark.parametrize(
    ("name", "shape", "size", "finding"),
    [
        (
            "head.weight",
            (10, 64),
            48,
            r"INT4 weights \[10, 64\] in blocks of 48 along axis 1; whole blocks of its inputs",
        ),
        ("head.weight", (7, 64), 32, r"INT4 weights \[7, 64\] in blocks of 32 along axis 1"),
        (
            "first.weight/axis1",
            (64, 64, 1),
            32,
            r"'first/MatMul' .*reads INT4 weights \[64, 64, 1\]; only MatMul and Gemm",
        ),
    ],
)
def test_int4_weights_that_an_engine_would_unpack_or_overrun(
    name: str, shape: tuple[int, ...], size: int, finding: str
) -> None:
    model = int4()
    stored = next(t for t in model.graph.initializer if t.name == f"{name}/quantized")
    stored.CopyFrom(int4_tensor(np.zeros(shape, np.int8), stored.name))
    restored = node(model, f"{name}/DequantizeLinear")
    next(a for a in restored.attribute if a.name == "block_size").i = size
    assert any(re.search(f"int8-only: .*{finding}", found) for found in check_tensorrt_rules(model))


def test_int4_that_is_read_by_something_else() -> None:
    model = int4()
    node(model, "relu/Relu").input[0] = "first.weight/axis1/quantized"
    assert any(found.startswith("int8-constants: node 'relu/Relu'") for found in check_tensorrt_rules(model))
