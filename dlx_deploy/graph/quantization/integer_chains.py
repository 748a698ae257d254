"""Which nodes pass integers from one kernel to the next."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from onnx import NodeProto

from dlx_deploy.graph.model import Index, attribute, float_attribute
from dlx_deploy.graph.quantization.residuals import residuals
from dlx_deploy.targets.kernels import IntegerKernels

__all__ = ["CLIPS", "FOLLOWERS", "MOVES", "SELECTS", "activations", "integer_nodes", "timed_as"]

CLIPS = ("Relu", "Clip")
SELECTS = ("MaxPool", "AveragePool", "Flatten", "Reshape")
"""Operators that give values within the range of what they read: their output has its scale."""
FOLLOWERS = (*CLIPS, *SELECTS, "GlobalAveragePool")
"""Operators that stay in INT8 where their input already is."""
MOVES = ("DepthToSpace", "Resize", "Slice", "Split", "Transpose")
"""Operators that move values, or repeat them, and pass integers on where their kernels were timed. A Resize that
interpolates has a scale of its own: with that of its input some runtimes would cut off where Q/DQ round."""


def integer_nodes(
    index: Index, layers: Sequence[NodeProto], left_out: Collection[str], kernels: IntegerKernels
) -> list[NodeProto]:
    """Layers, residual sums, and what follows them without leaving INT8, none ``left_out``; in graph order."""
    return _chosen(index, layers, {*left_out, *_idle(index, layers, left_out, kernels)}, kernels)


def _chosen(
    index: Index, layers: Sequence[NodeProto], left_out: Collection[str], kernels: IntegerKernels
) -> list[NodeProto]:
    """As ``integer_nodes``, whoever reads them."""
    outputs = {node.output[0] for node in layers}
    # Of what is summed or multiplied all must be integers already: no other input is quantized for it.
    integers = {node.output[0] for node in layers if node.op_type == "Conv"}
    sums = residuals(index, layers)
    ends = {value.name for value in index.model.graph.output}
    for node in index.model.graph.node:
        follows = node.op_type in FOLLOWERS and node.input[0] in outputs
        if timed_as(node) in kernels.operators and not ends & set(node.output):
            follows = follows or all(name in integers for name in activations(node))
        if node.name not in left_out and (follows or node.output[0] in sums):
            outputs.update(node.output)
            integers.update(node.output)
    return [node for node in index.model.graph.node if node.output[0] in outputs]


def _idle(index: Index, layers: Sequence[NodeProto], left_out: Collection[str], kernels: IntegerKernels) -> list[str]:
    """The operators that would pass integers on to no layer: rounding would gain nothing."""
    if not kernels.operators:
        return []
    chosen = _chosen(index, layers, left_out, kernels)
    useful = {node.output[0] for node in layers}
    for node in reversed(chosen):
        if any(reader.output[0] in useful for name in node.output for reader in index.readers(name)):
            useful.add(node.output[0])
    return [node.name for node in chosen if node.output[0] not in useful and node.op_type not in FOLLOWERS]


def timed_as(node: NodeProto) -> str:
    """What the node is called in the table of kernels; empty: nothing like it was timed."""
    if node.op_type == "Resize":
        mode = attribute(node, "mode", b"nearest")
        return "Resize" if mode == b"nearest" else f"Resize:{mode.decode() if isinstance(mode, bytes) else mode}"
    if node.op_type == "HardSigmoid" and float_attribute(node, "alpha", 0.2) <= 0:
        return ""
    return str(node.op_type)


def activations(node: NodeProto) -> list[str]:
    """What the node reads, but for parameters such as axes and sizes."""
    return list(node.input[:1]) if node.op_type in MOVES else [name for name in node.input if name]
