"""Which layer of a compressed graph is which of the graph in floating point, and where integers begin and end in it.

Layers are found by the names of their nodes, which every writer keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import DYNAMIC, DYNAMIC_SUFFIX, layer_precision

__all__ = ["COMPRESSED", "LayerPair", "paired_layers"]

COMPRESSED = ("int8", "int4", "fp8")
"""Precisions in which a layer computes on integers, or has weights of few bits."""
CLIP = "Clip"


@dataclass(frozen=True)
class LayerPair:
    """A layer of both graphs: its node in floating point, ``plain``, and in ``precision``, ``written``.

    ``reads``: the tensor of the compressed graph that its integers are made of, or that it reads as it is; ``gives``:
    the tensor that stands for the output of ``plain``.
    """

    name: str
    precision: str
    plain: NodeProto
    written: NodeProto
    reads: str
    gives: str

    @property
    def is_compressed(self) -> bool:
        """Whether there is something to restore."""
        return self.precision in COMPRESSED


def paired_layers(reference: ModelProto, written: ModelProto) -> list[LayerPair]:
    """The layers with weights that both graphs have, in the order of ``reference``."""
    index, precisions = Index(written), layer_precision(written)
    there = {
        node.name.removesuffix(DYNAMIC_SUFFIX) if node.op_type == DYNAMIC else node.name: node
        for node in written.graph.node
    }
    wanted = layer_precision(reference)
    return [
        LayerPair(
            name=node.name,
            precision=precisions[node.name],
            plain=node,
            written=there[node.name],
            reads=_reads(index, there[node.name]),
            gives=_gives(index, node, there[node.name]),
        )
        for node in reference.graph.node
        if node.name in wanted and node.name in precisions and node.name in there
    ]


def _reads(index: Index, node: NodeProto) -> str:
    """The tensor in floating point behind what the layer reads."""
    name = node.input[0]
    dynamic = index.made_by(name, "DynamicQuantizeLinear")
    if dynamic is not None:
        return str(dynamic.input[0])
    restored = index.made_by(name, "DequantizeLinear")
    quantizer = index.made_by(restored.input[0], "QuantizeLinear") if restored is not None else None
    if quantizer is None:
        return str(name)
    clip = index.made_by(quantizer.input[0], CLIP)
    # Integers of fewer bits than they are stored as are clipped first; any other Clip is the network's own.
    if clip is not None and clip.output[0].endswith("/clipped"):
        return str(clip.input[0])
    return str(quantizer.input[0])


def _gives(index: Index, plain: NodeProto, written: NodeProto) -> str:
    """The layer's output: under its own name where products of integers are summed and scaled in other nodes; under
    that of the layer's node where its name went to what follows."""
    own = plain.output[0]
    maker = index.producer.get(own)
    if maker is not None and maker.op_type != "DequantizeLinear":
        return str(own)
    return str(written.output[0])
