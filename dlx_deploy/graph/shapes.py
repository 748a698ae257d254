"""Shapes that a graph computes from its input's shape, worked out; no torch.

With a dynamic length an exporter writes out how each reshape's target follows from the length: Shape, Gather, Concat, …
ONNX's own inference follows little of that. Here nodes that compute integers from known shapes and constants are
evaluated with ONNX's reference implementation, and inference goes on from what they gave.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

__all__ = ["folded"]

_SMALL = 1 << 12
"""Elements. Shapes and positions are smaller; weights are larger, and no inference needs their values."""
_ROUNDS = 64
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def folded(model: ModelProto) -> GraphProto:
    """``model``'s graph with every shape inferred that follows from those of its inputs. ``model`` is spent.

    Raises:
        onnx.shape_inference.InferenceError: the shapes contradict each other.
    """
    _leave_out_weights(model.graph)
    known: dict[str, NDArray[np.generic]] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for _ in range(_ROUNDS):
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}
        if all(_dims(v) is not None for v in values.values()) or not _fold(model, values, known):
            break
    return inferred


def _leave_out_weights(graph: GraphProto) -> None:
    """Inputs of their types and shapes in place of large initializers."""
    large = [t for t in graph.initializer if np.prod(t.dims) > _SMALL]
    kept = [t for t in graph.initializer if np.prod(t.dims) <= _SMALL]
    taken = {value.name for value in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in large if t.name not in taken
    )
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _fold(model: ModelProto, values: dict[str, ValueInfoProto], known: dict[str, NDArray[np.generic]]) -> bool:
    """Turn nodes that can be computed into constants; whether there were any. Graph order, so chains fold at once."""
    graph, left, progress = model.graph, [], False
    for node in graph.node:
        results = _computed(model, node, values, known)
        if results is None:
            left.append(node)
            continue
        progress = True
        for name, array in zip(node.output, results, strict=False):
            known[name] = array
            graph.initializer.append(numpy_helper.from_array(array, name))
    kept = [_copy(node) for node in left]
    del graph.node[:]
    graph.node.extend(kept)
    return progress


def _computed(
    model: ModelProto, node: NodeProto, values: dict[str, ValueInfoProto], known: dict[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]] | None:
    outputs = [values[name] for name in node.output if name in values]
    if any(v.name in {o.name for o in model.graph.output} for v in outputs):
        return None
    if node.op_type in ("Shape", "Size"):
        dims = _dims(values[node.input[0]]) if node.input[0] in values else None
        if node.input[0] in known:
            dims = list(known[node.input[0]].shape)
        return None if dims is None else _evaluated(model, node, {node.input[0]: np.broadcast_to(np.float32(0), dims)})
    if not outputs or any(v.type.tensor_type.elem_type not in _INTEGERS for v in outputs):
        return None
    if any(g.HasField("g") for g in node.attribute) or not all(name in known for name in node.input if name):
        return None
    results = _evaluated(model, node, {name: known[name] for name in node.input if name})
    return results if results is not None and all(r.size <= _SMALL for r in results) else None


def _evaluated(
    model: ModelProto, node: NodeProto, feeds: dict[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]] | None:
    """The node's outputs; ``None`` where the reference implementation does not know it."""
    from onnx.reference import ReferenceEvaluator

    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape))
        for n, a in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "one", inputs, outputs)
    one = onnx.helper.make_model(graph, opset_imports=list(model.opset_import), functions=list(model.functions))
    try:
        results = ReferenceEvaluator(one).run(None, feeds)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, KeyError, AttributeError):
        return None
    return [np.asarray(r) for r in results]


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _dims(value: ValueInfoProto) -> list[int] | None:
    """The shape, if all of it is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return [d.dim_value for d in tensor.shape.dim]
