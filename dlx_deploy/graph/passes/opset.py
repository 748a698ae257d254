"""Rewriting a graph for an older operator set, for parsers that read no newer one; no torch.

TensorRT 8.5 reads up to opset 17 and TensorRT 8.2 up to 13, while the exporter writes 18 and newer. Most operators only
gained element types on the way; the few that changed form have a rule here, and any other is refused by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, defs, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import STANDARD, Index, attribute, infer, int_attribute, load, opset
from dlx_deploy.graph.passes.base import Pass

__all__ = ["lower", "to_opset"]


_SCALE_OF_CHANNELS = 21
"""The opset from which GroupNormalization has a scale for each channel."""


class _Context:
    """What a rule may ask about the graph, and where it leaves new constants."""

    def __init__(self, model: ModelProto, target: int) -> None:
        self._model = model
        self.index = Index(model)
        self.source, self.target = opset(model), target
        self.constants: list[onnx.TensorProto] = []

    def values(self, node: NodeProto, position: int) -> list[int] | None:
        """The integers of a constant input, ``None`` where the input is absent."""
        if len(node.input) <= position or not node.input[position]:
            return None
        if node.input[position] not in self.index.initializers:
            raise _refused(node, self.target, f"its input {position} is computed, not constant")
        return [int(v) for v in self.index.array(node.input[position]).reshape(-1)]

    def rank(self, name: str) -> int:
        """How many dimensions a tensor has; 0 where that is not known."""
        info = infer(self._model).get(name)
        return len(info.shape) if info else 0

    def constant(self, name: str, values: object, dtype: type[np.generic]) -> str:
        """The name of a new initializer."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name


def lower(model: ModelProto, target: int) -> ModelProto:
    """A model that computes the same at opset ``target`` (or its own, if that is older), in the oldest IR version.

    Raises:
        StageFailed: an operator does not exist at that opset, or not in the form that the graph uses; it is named.
    """
    model = load(model)
    source = opset(model)
    context = _Context(model, min(source, target))
    nodes = [new for node in model.graph.node for new in _lowered(node, source, context)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(context.constants)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", context.target))
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    return model


def to_opset(target: int) -> Pass:
    """The pass that lowers a graph to opset ``target``."""

    def newer(model: ModelProto) -> Sequence[str]:
        return [f"it is at opset {opset(model)}"] if opset(model) > target else []

    return Pass(f"opset-{target}", functools.partial(lower, target=target), ensures=newer)


def _lowered(node: NodeProto, source: int, context: _Context) -> list[NodeProto]:
    if node.domain not in STANDARD:
        raise _refused(node, context.target, f"it belongs to the domain {node.domain!r}")
    new = defs.get_schema(node.op_type, source)
    if new.since_version <= context.target:
        return [node]
    if node.op_type in _RULES:
        return _RULES[node.op_type](node, context)
    try:
        old = defs.get_schema(node.op_type, context.target)
    except defs.SchemaError as e:
        raise _absent(node, context.target) from e
    if len(node.input) > old.max_input:
        raise _refused(node, context.target, f"it has {len(node.input)} inputs, and {old.max_input} were allowed then")
    return [_without_new_attributes(node, new, old, context)]


def _without_new_attributes(node: NodeProto, new: defs.OpSchema, old: defs.OpSchema, context: _Context) -> NodeProto:
    """The node less attributes that the old form lacks, which must hold their default: what the old form did."""
    kept = []
    for item in node.attribute:
        if item.name in old.attributes:
            kept.append(item)
            continue
        default = new.attributes[item.name].default_value
        value, usual = helper.get_attribute_value(item), helper.get_attribute_value(default) if default.name else None
        if value != usual:
            raise _refused(node, context.target, f"its attribute {item.name} = {value!r} did not exist")
    return _rebuilt(node, list(node.input), kept)


def _rebuilt(node: NodeProto, inputs: list[str], attributes: list[onnx.AttributeProto]) -> NodeProto:
    new = helper.make_node(node.op_type, inputs, list(node.output), name=node.name)
    new.attribute.extend(attributes)
    return new


def _refused(node: NodeProto, target: int, why: str) -> StageFailed:
    return StageFailed(
        f"{node.op_type} (node {node.name!r}) cannot be written at opset {target}: {why}; "
        f"choose a target whose parser reads a newer opset, or replace the layer"
    )


def _absent(node: NodeProto, target: int) -> StageFailed:
    own = [s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", node.op_type)]
    return _refused(node, target, f"the operator is only there since opset {min(own)}")


def _reduce(node: NodeProto, context: _Context) -> list[NodeProto]:
    """Axes were an attribute before opset 18."""
    if context.target >= 18:
        return [node]
    axes = context.values(node, 1)
    if axes is None and int_attribute(node, "noop_with_empty_axes", 0):
        return [helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)]
    kept = [item for item in node.attribute if item.name == "keepdims"]
    if axes:
        kept.append(helper.make_attribute("axes", axes))
    return [_rebuilt(node, [node.input[0]], kept)]


def _reshape(node: NodeProto, context: _Context) -> list[NodeProto]:
    """``allowzero`` came with opset 14; it matters only where the new shape holds a zero."""
    if int_attribute(node, "allowzero", 0):
        shape = node.input[1]
        if shape in context.index.initializers and 0 in (context.values(node, 1) or []):
            raise _refused(node, context.target, "its attribute allowzero = 1 did not exist, and its shape holds a 0")
    return [_rebuilt(node, list(node.input), [])]


def _split(node: NodeProto, context: _Context) -> list[NodeProto]:
    """``num_outputs`` came with opset 18; before, a split without sizes was an even one."""
    kept = [item for item in node.attribute if item.name != "num_outputs"]
    return [_rebuilt(node, list(node.input), kept)]


def _shape(node: NodeProto, context: _Context) -> list[NodeProto]:
    """``start`` and ``end`` came with opset 15; before, the shape had to be sliced."""
    start, end = attribute(node, "start", 0), attribute(node, "end")
    name = node.output[0]
    if not start and end is None:
        return [_rebuilt(node, list(node.input), [])]
    whole = helper.make_node("Shape", [node.input[0]], [f"{name}/whole"], name=node.name)
    first = context.constant(f"{name}/start", [start], np.int64)
    last = context.constant(f"{name}/end", [np.iinfo(np.int64).max if end is None else end], np.int64)
    return [whole, helper.make_node("Slice", [f"{name}/whole", first, last], [name], name=f"{node.name}/Slice")]


def _batch_norm(node: NodeProto, context: _Context) -> list[NodeProto]:
    """``training_mode`` came with opset 14."""
    if int_attribute(node, "training_mode", 0):
        raise _refused(node, context.target, "it is in training mode; export the model in eval mode")
    return [_rebuilt(node, list(node.input), [item for item in node.attribute if item.name != "training_mode"])]


def _hard_swish(node: NodeProto, context: _Context) -> list[NodeProto]:
    """HardSwish came with opset 14: x * HardSigmoid(x), alpha 1/6 and beta 1/2."""
    gate = f"{node.output[0]}/gate"
    return [
        helper.make_node(
            "HardSigmoid", [node.input[0]], [gate], name=f"{node.name}/HardSigmoid", alpha=1 / 6, beta=0.5
        ),
        helper.make_node("Mul", [node.input[0], gate], list(node.output), name=f"{node.name}/Mul"),
    ]


def _layer_norm(node: NodeProto, context: _Context) -> list[NodeProto]:
    """LayerNormalization came with opset 17: (x - mean) / sqrt(variance + epsilon) * scale + bias."""
    axis = int_attribute(node, "axis", -1)
    if axis >= 0 or len(node.output) > 1:
        raise _refused(node, context.target, f"only a negative axis and one output can be rewritten; axis is {axis}")
    epsilon = context.constant(f"{node.output[0]}/epsilon", attribute(node, "epsilon", 1e-5), np.float32)
    half = context.constant(f"{node.output[0]}/two", 2.0, np.float32)
    x, out = node.input[0], node.output[0]
    axes = list(range(axis, 0))
    steps = [
        ("ReduceMean", [x], "mean"),
        ("Sub", [x, f"{out}/mean"], "centred"),
        ("Pow", [f"{out}/centred", half], "squared"),
        ("ReduceMean", [f"{out}/squared"], "variance"),
        ("Add", [f"{out}/variance", epsilon], "stabilised"),
        ("Sqrt", [f"{out}/stabilised"], "deviation"),
        ("Div", [f"{out}/centred", f"{out}/deviation"], "normalised"),
        ("Mul", [f"{out}/normalised", node.input[1]], "scaled"),
    ]
    if len(node.input) > 2 and node.input[2]:
        steps.append(("Add", [f"{out}/scaled", node.input[2]], "shifted"))
    last = steps[-1][2]
    nodes = []
    for op, inputs, step in steps:
        made = helper.make_node(op, inputs, [out if step == last else f"{out}/{step}"], name=f"{node.name}/{step}")
        if op == "ReduceMean":
            made.attribute.append(helper.make_attribute("axes", axes))
        nodes.append(made)
    return nodes


def _grid_sample(node: NodeProto, context: _Context) -> list[NodeProto]:
    """Opset 20 gave ``bilinear`` and ``bicubic`` new names, and took volumes beside images; 16 had it first."""
    if context.target < 16:
        raise _absent(node, context.target)
    mode = attribute(node, "mode", b"linear")
    older = {b"linear": "bilinear", b"cubic": "bicubic"}.get(mode if isinstance(mode, bytes) else b"", "nearest")
    if context.rank(node.input[0]) > 4:
        raise _refused(node, context.target, "it samples volumes, which came with opset 20")
    kept = [item for item in node.attribute if item.name != "mode"]
    return [_rebuilt(node, list(node.input), [*kept, helper.make_attribute("mode", older)])]


def _gelu(node: NodeProto, context: _Context) -> list[NodeProto]:
    """Gelu came with opset 20: x / 2 * (1 + gate), the gate erf(x / sqrt 2), or where it says so a tanh near to it."""
    x, out = node.input[0], node.output[0]

    def number(name: str, value: float) -> str:
        return context.constant(f"{out}/{name}", value, np.float32)

    if attribute(node, "approximate") == b"tanh":
        steps = [
            ("Mul", [x, x], "square"),
            ("Mul", [f"{out}/square", x], "cubed"),
            ("Mul", [f"{out}/cubed", number("cube", 0.044715)], "bend"),
            ("Add", [x, f"{out}/bend"], "bent"),
            ("Mul", [f"{out}/bent", number("slope", (2 / np.pi) ** 0.5)], "scaled"),
            ("Tanh", [f"{out}/scaled"], "gate"),
        ]
    else:
        steps = [("Mul", [x, number("root", 0.5**0.5)], "scaled"), ("Erf", [f"{out}/scaled"], "gate")]
    steps += [("Add", [f"{out}/gate", number("one", 1.0)], "open"), ("Mul", [x, number("half", 0.5)], "halved")]
    nodes = [helper.make_node(op, inputs, [f"{out}/{step}"], name=f"{node.name}/{step}") for op, inputs, step in steps]
    return [*nodes, helper.make_node("Mul", [f"{out}/halved", f"{out}/open"], [out], name=f"{node.name}/product")]


def _group_norm(node: NodeProto, context: _Context) -> list[NodeProto]:
    """GroupNormalization of 21 has a scale for each channel; that of 18, for each group, is out of use.

    It is an instance normalization of the groups, of scale 1 where the channels have theirs.
    """
    (x, scale, bias), out = node.input, node.output[0]
    if not {scale, bias} <= context.index.initializers.keys():
        raise _refused(node, context.target, "its scale or bias is computed, not constant")
    groups, values = int_attribute(node, "num_groups", 1), context.index.array(scale)
    made: list[NodeProto] = []

    def step(kind: str, name: str, *inputs: str) -> str:
        made.append(helper.make_node(kind, inputs, [f"{out}/{name}"], name=f"{node.name}/{name}"))
        return f"{out}/{name}"

    def constant(name: str, values: object, dtype: type[np.generic] = np.float32) -> str:
        return context.constant(f"{out}/{name}", values, dtype)

    last = step("Reshape", "grouped", x, constant("groups", [0, groups, -1], np.int64))
    if context.source < _SCALE_OF_CHANNELS:
        last = step("InstanceNormalization", "normal", last, scale, bias)
    else:
        ones, zeros = constant("ones", np.ones(groups)), constant("zeros", np.zeros(groups))
        last = step("InstanceNormalization", "normal", last, ones, zeros)
        last = step("Reshape", "channels", last, constant("each", [0, values.size, -1], np.int64))
        last = step("Mul", "scaled", last, constant("scale", values.reshape(-1, 1)))
        last = step("Add", "shifted", last, constant("bias", context.index.array(bias).reshape(-1, 1)))
    made[1].attribute.extend(item for item in node.attribute if item.name == "epsilon")
    shape = step("Shape", "shape", x)
    return [*made, helper.make_node("Reshape", [last, shape], [out], name=f"{node.name}/back")]


_RULES: dict[str, Callable[[NodeProto, _Context], list[NodeProto]]] = {
    "BatchNormalization": _batch_norm,
    "Gelu": _gelu,
    "GridSample": _grid_sample,
    "GroupNormalization": _group_norm,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_norm,
    "ReduceL2": _reduce,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSumSquare": _reduce,
    "Reshape": _reshape,
    "Shape": _shape,
    "Split": _split,
}
