"""What TensorRT demands of an explicitly quantized graph, as checks of the ONNX file.

Each rule is a function from the indexed graph to findings. Those marked *silent* are the dangerous ones: the parser
takes the graph and the engine computes something else, in another precision or with other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs

from dlx_deploy.graph.model import QDQ, STANDARD, WEIGHTED, Index, attribute, int_attribute, opset
from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.quantization.layers import through_qdq, weight_axis
from dlx_deploy.targets.opsets import OLDEST

__all__ = ["TENSORRT_RULES", "check_tensorrt_rules"]

UNSUPPORTED = ("QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear")
STORED = (TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN)
"""What weights are stored as."""
FLOATING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def check_tensorrt_rules(model: ModelProto) -> list[str]:
    """What TensorRT 8.5 to 11 would refuse or silently compute otherwise; an empty list is a clean graph.

    Each finding is ``rule: node 'name': what is wrong``.
    """
    index = Index(model)
    return [f"{rule}: {finding}" for rule, check in _RULES.items() for finding in check(index)]


def _nodes(index: Index, *op_types: str) -> Iterator[NodeProto]:
    return (node for node in index.model.graph.node if node.op_type in op_types)


def _at(node: NodeProto, text: str) -> str:
    return f"node {node.name!r} ({node.op_type}): {text}"


def _constant_parameters(index: Index) -> Iterator[str]:
    for node in _nodes(index, *QDQ):
        if any(name not in index.initializers for name in node.input[1:] if name):
            yield _at(node, "its scale or zero point is computed; both must be constants of the graph")


def _zero_points(index: Index) -> Iterator[str]:
    for node in _nodes(index, *QDQ):
        name = node.input[2] if len(node.input) > 2 else ""
        if name in index.initializers and index.array(name).any():
            yield _at(node, f"its zero point is not 0 (up to {int(np.abs(index.array(name)).max())}); only symmetric")


def _types(index: Index) -> Iterator[str]:
    """*Silent* for uint8 with zero point 0, which runs as int8: values above 127 saturate."""
    for node in _nodes(index, *QDQ):
        name = node.input[2] if len(node.input) > 2 else ""
        if not name and node.op_type == "DequantizeLinear":
            yield from _blocks_of(index, node)
            continue  # the type is that of its input
        kind = index.initializers[name].data_type if name in index.initializers else TensorProto.UINT8
        if kind not in (TensorProto.INT8, TensorProto.INT32, TensorProto.FLOAT8E4M3FN):
            yield _at(node, f"it quantizes to {TensorProto.DataType.Name(kind).lower()}; only int8 and float8e4m3fn")


def _blocks_of(index: Index, node: NodeProto) -> Iterator[str]:
    """*Silent* for INT4 that is no even block of a product's inputs: weights are unpacked beforehand, or overrun."""
    stored = index.initializers.get(node.input[0])
    if stored is None or stored.data_type != TensorProto.INT4:
        return
    size, axis, dims = int_attribute(node, "block_size", 0), int_attribute(node, "axis", 1), list(stored.dims)
    for reader in index.readers(node.output[0]):
        if reader.op_type not in ("Gemm", "MatMul") or reader.input[1] != node.output[0] or len(dims) != 2:
            yield _at(reader, f"it reads INT4 weights {dims}; only MatMul and Gemm of a matrix may")
        elif not size or axis != 1 - weight_axis(reader, 2) or dims[axis] % size or dims[1 - axis] % 2:
            yield _at(reader, f"INT4 weights {dims} in blocks of {size} along axis {axis}; whole blocks of its inputs")


def _int32_bias(index: Index) -> Iterator[str]:
    for node in _nodes(index, "DequantizeLinear"):
        stored = index.initializers.get(node.input[0])
        if stored is not None and stored.data_type == TensorProto.INT32:
            yield _at(node, "it dequantizes an int32 constant; biases stay in floating point")


def _scales(index: Index) -> Iterator[str]:
    for node in _nodes(index, *QDQ):
        if node.input[1] not in index.initializers:
            continue
        scale = index.array(node.input[1]).astype(np.float64)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield _at(node, f"a scale is {scale.min()}; all must be finite and above 0")


def _per_tensor_activations(index: Index) -> Iterator[str]:
    """*Silent*: with one scale per channel, or one in a vector of one, a convolution runs in floating point."""
    for quantize in _nodes(index, "QuantizeLinear"):
        if quantize.input[0] in index.initializers:
            continue
        for node in [quantize, *index.readers(quantize.output[0])]:
            stored = index.initializers.get(node.input[1]) if node.op_type in QDQ else None
            if stored is not None and stored.dims:
                yield _at(node, f"its scale for an activation has the shape {list(stored.dims)}; it must be a scalar")


def _weight_axes(index: Index) -> Iterator[str]:
    """*Silent*: with scales along another axis than the output channels the layer runs in floating point."""
    for node in _nodes(index, *WEIGHTED):
        dequantize = index.made_by(node.input[1], "DequantizeLinear")
        if dequantize is None or dequantize.input[0] not in index.initializers:
            continue
        stored, scale = index.initializers[dequantize.input[0]], index.initializers.get(dequantize.input[1])
        if stored.data_type == TensorProto.INT4:
            continue
        axis, rank = int_attribute(dequantize, "axis", 1), len(stored.dims)
        wanted = weight_axis(node, rank)
        if scale is not None and int(np.prod(scale.dims)) != 1 and axis % rank != wanted:
            yield _at(node, f"its weight scales lie along axis {axis}; the output channels are axis {wanted}")


def _transposed_convolutions(index: Index) -> Iterator[str]:
    """*Silent*: INT8 ConvTranspose runs in floating point."""
    for node in _nodes(index, "ConvTranspose"):
        if through_qdq(index, node.input[0]) or through_qdq(index, node.input[1]):
            yield _at(node, "it is quantized; it would run in floating point")


def _folded_weights(index: Index) -> Iterator[str]:
    for node in _nodes(index, "QuantizeLinear"):
        if node.input[0] in index.initializers:
            yield _at(node, "it quantizes a constant; store the int8 values")


def _int8_constants(index: Index) -> Iterator[str]:
    zero_points = {name for node in _nodes(index, *QDQ) for name in node.input[2:]}
    for name, stored in index.initializers.items():
        if stored.data_type not in STORED or name in zero_points:
            continue
        for node in index.readers(name):
            if node.op_type != "DequantizeLinear":
                yield _at(node, f"it reads the int8 constant {name!r}; only DequantizeLinear may")


def _int8_activations(index: Index) -> Iterator[str]:
    for node in _nodes(index, "QuantizeLinear"):
        for reader in index.readers(node.output[0]):
            if reader.op_type != "DequantizeLinear":
                yield _at(reader, f"it reads int8 from {node.name!r}; DequantizeLinear must come first")


def _double_precision(index: Index) -> Iterator[str]:
    """*Silent*: FP64 is computed in FP32."""
    for name, stored in index.initializers.items():
        if stored.data_type == TensorProto.DOUBLE:
            yield f"tensor {name!r}: it is float64; store float32"
    for node in _nodes(index, "Cast"):
        if attribute(node, "to") == TensorProto.DOUBLE:
            yield _at(node, "it casts to float64; use float32")


def _residual_sums(index: Index) -> Iterator[str]:
    """A pair between a convolution and its sum keeps the two from being fused, unless the other input is a bare one."""
    for node in _nodes(index, "Add"):
        bare = any(index.made_by(name, "Conv") for name in node.input)
        behind = [through_qdq(index, name) for name in node.input]
        if not bare and any(name and index.made_by(name, "Conv") for name in behind):
            yield _at(node, "both its inputs are dequantized or none is a convolution; quantize the identity alone")


def _uint8_input(index: Index) -> Iterator[str]:
    for value in index.model.graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        for node in index.readers(value.name):
            if node.op_type not in ("Cast", "Shape"):
                yield _at(node, f"it reads the uint8 input {value.name!r}; only Cast may")


def _operators(index: Index) -> Iterator[str]:
    for node in index.model.graph.node:
        if node.op_type in UNSUPPORTED or node.domain not in STANDARD:
            name = f"{node.domain or STANDARD[-1]}.{node.op_type}"
            yield _at(node, f"{name} is not supported; use Q/DQ around float layers")


def _mixed_types(index: Index) -> Iterator[str]:
    """A strongly typed network takes no float32 beside float16: also what a half-converted BF16 export looks like."""
    types = _element_types(index.model)
    for node in index.model.graph.node:
        if node.domain not in STANDARD or not defs.has(node.op_type, opset(index.model)):
            continue
        formal = defs.get_schema(node.op_type, opset(index.model)).inputs
        seen: dict[str, set[int]] = {}
        for i, name in enumerate(node.input):
            if types.get(name, 0) in FLOATING:
                seen.setdefault(formal[min(i, len(formal) - 1)].type_str, set()).add(types[name])
        for kinds in seen.values():
            if len(kinds) > 1:
                names = " and ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in kinds))
                yield _at(node, f"its inputs are {names}; cast them to one type")


def _element_types(model: ModelProto) -> dict[str, int]:
    """The type of every tensor as far as it can be inferred from a graph that may be wrong."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:  # another rule says what is wrong with this graph
        inferred = model.graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return {**types, **{t.name: int(t.data_type) for t in inferred.initializer}}


def _attention(index: Index) -> Iterator[str]:
    """One tensor as two inputs kills TensorRT-RTX's process; 3-D inputs are refused with a dynamic batch."""
    for node in _nodes(index, "Attention"):
        if int_attribute(node, "q_num_heads", 0):
            yield _at(node, "it takes 3-D inputs and splits the heads itself; reshape to 4-D q, k and v before it")
        if len(set(node.input[:3])) < 3:
            yield _at(node, "q, k and v are not three tensors; put an Identity before each")


def _operator_set(index: Index) -> Iterator[str]:
    if any(_nodes(index, *QDQ)) and opset(index.model) < OLDEST:
        yield f"the graph is at opset {opset(index.model)}; per-channel scales need {OLDEST}"


_RULES: dict[str, Callable[[Index], Iterator[str]]] = {
    "opset": _operator_set,
    "operators": _operators,
    "constant-parameters": _constant_parameters,
    "zero-point": _zero_points,
    "int8-only": _types,
    "bias": _int32_bias,
    "scale": _scales,
    "per-tensor": _per_tensor_activations,
    "weight-axis": _weight_axes,
    "transposed-convolution": _transposed_convolutions,
    "folded-weights": _folded_weights,
    "int8-constants": _int8_constants,
    "int8-activations": _int8_activations,
    "float64": _double_precision,
    "residual-sum": _residual_sums,
    "uint8-input": _uint8_input,
    "mixed-types": _mixed_types,
    "attention": _attention,
}

TENSORRT_RULES = Pass("tensorrt-rules", lambda model: model, ensures=check_tensorrt_rules)
"""Changes nothing: the last pass of a graph that TensorRT will read."""
