"""Operators that a CPU-style graph dequantizes for, computes in floating point, and quantizes again behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto

from dlx_deploy.graph.model import QDQ, Index, infer, load
from dlx_deploy.targets.roofline import LayerCost

__all__ = ["island_costs", "island_words", "islands"]

FUSED = frozenset(
    (
        *("Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool", "Mul"),
        *("DepthToSpace", "Flatten", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose"),
        *("Clip", "Relu", "Unsqueeze"),
    )
)
"""What ONNX Runtime folds with the pairs around it, where they are on all sides."""
FLOAT_BYTES = 4
SHOWN = 4
"""Kinds of operators that are named."""


def islands(model: ModelProto) -> list[NodeProto]:
    """The nodes between a tensor that is dequantized and one that is quantized, in graph order.

    None of those that read dequantized tensors alone, are read by quantizers alone, and have an integer kernel.
    """
    index = Index(model)
    behind: set[str] = set()
    for node in model.graph.node:
        restores = node.op_type == "DequantizeLinear" and node.input[0] not in index.initializers
        if restores or (node.op_type not in QDQ and behind & set(node.input) and not _is_fused(index, node)):
            behind.update(node.output)
    before = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found = []
    for node in reversed(model.graph.node):
        if node.op_type in QDQ or not before & set(node.output) or _is_fused(index, node):
            continue
        if behind & set(node.input):
            found.append(node)
            before.update(node.input)
    return found[::-1]


def island_words(source: Path) -> str:
    """Which operators of the graph in ``source`` are islands, for people: ``19 HardSwish and 9 Mul``; empty: none."""
    counts = Counter(node.op_type for node in islands(load(source))).most_common(SHOWN)
    return _joined([f"{count} {kind}" for kind, count in counts])


def island_costs(source: Path) -> list[LayerCost]:
    """What the islands of the graph in ``source`` cost for one image beside its layers (``analysis.cost``), which take
    what is pointwise along for nothing: each is a pass over memory of its own, and so is what restores and quantizes.
    """
    model = load(source)
    index, found = Index(model), islands(model)
    if not found:
        return []
    shapes = infer(model, batch=1)
    passes = {node.name: node for node in found}
    for node in found:
        makers = [index.made_by(name, "DequantizeLinear") for name in node.input]
        readers = [reader for name in node.output for reader in index.readers(name)]
        around = [*filter(None, makers), *(reader for reader in readers if reader.op_type == "QuantizeLinear")]
        passes |= {other.name: other for other in around}

    def width(names: Sequence[str]) -> int:
        known = [shapes[name] for name in names if name in shapes and name not in index.initializers]
        return sum(info.elements * (FLOAT_BYTES if info.dtype == TensorProto.FLOAT else 1) for info in known)

    return [
        LayerCost(
            name=node.name,
            op=node.op_type,
            macs=0,
            weight_bytes=0,
            input_bytes=width(node.input),
            output_bytes=width(node.output),
            dtype="fp32",
            memory_bound=True,
        )
        for node in passes.values()
    ]


def _is_fused(index: Index, node: NodeProto) -> bool:
    activations = [name for name in node.input if name and name not in index.initializers]
    readers = [reader for name in node.output for reader in index.readers(name)]
    return (
        node.op_type in FUSED
        and all(index.made_by(name, "DequantizeLinear") for name in activations)
        and bool(readers)
        and all(reader.op_type == "QuantizeLinear" for reader in readers)
    )


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
