"""A compressed graph with layers in floating point again, as they were before."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper

from dlx_deploy.graph.comparison.pairing import LayerPair
from dlx_deploy.graph.model import Index, infer, load
from dlx_deploy.graph.passes.tidy import tidy

__all__ = ["restored"]

PRODUCTS = ("Gemm", "MatMul")
"""Whose outputs keep their resolution: it is who reads them that makes integers of them."""


def restored(reference: ModelProto, written: ModelProto, layers: Sequence[LayerPair], between: bool) -> ModelProto:
    """A copy of ``written`` in which ``layers`` compute in float32, with the weights of ``reference``.

    A layer reads what its integers were made of. ``between``: integers pass from kernel to kernel (``placement``):
    what another layer on integers makes stays on them, as ``quantize.exclude`` would leave it. What follows stays.
    """
    model = load(written)
    for layer in layers:
        _restore(model, reference, layer, between)
    return tidy(_alive(model))


def _restore(model: ModelProto, reference: ModelProto, layer: LayerPair, between: bool) -> None:
    index, before_it = Index(model), Index(reference)
    constants = before_it.initializers
    types = {name: info.dtype for name, info in infer(model).items()}
    node, before, after = NodeProto(), list[NodeProto](), list[NodeProto]()
    node.CopyFrom(layer.plain)
    node.input[0] = _read(index, before_it, layer, between)
    for position, name in enumerate(layer.plain.input):
        if position and name in constants:
            own = f"{layer.name}/restored:{name}"
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(constants[name])
            tensor.name = node.input[position] = own
    if types.get(node.input[0], TensorProto.FLOAT) != TensorProto.FLOAT:
        before.append(_cast(node.input[0], f"{layer.name}/restored:in", TensorProto.FLOAT))
        node.input[0] = before[0].output[0]
    node.output[0] = layer.gives
    if (kind := types.get(layer.gives, TensorProto.FLOAT)) != TensorProto.FLOAT:
        node.output[0] = f"{layer.name}/restored:out"
        after.append(_cast(node.output[0], layer.gives, kind))
    nodes = list[NodeProto]()
    for old in model.graph.node:
        nodes += [*before, node, *after] if layer.gives in old.output else [old]
    copies = [_copy(old) for old in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _read(index: Index, plain: Index, layer: LayerPair, between: bool) -> str:
    """What the layer reads in floating point: what its integers are made of, or these where integers made them."""
    own, maker, same = str(layer.written.input[0]), index.producer.get(layer.reads), plain.producer.get(layer.reads)
    if maker is None or index.made_by(own, "DequantizeLinear") is None:
        return layer.reads
    if same is None or same.op_type != maker.op_type:
        return own  # an activation function went into the quantizer, which clips as it did
    if between and maker.op_type not in PRODUCTS and index.made_by(maker.input[0], "DequantizeLinear") is not None:
        return own
    return layer.reads


def _cast(source: str, out: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [out], name=out, to=kind)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _alive(model: ModelProto) -> ModelProto:
    """``model``, edited in place, without the nodes whose outputs nobody reads any more."""
    read = {value.name for value in model.graph.output}
    kept = list[NodeProto]()
    for node in reversed(model.graph.node):
        if read.intersection(node.output):
            kept.append(_copy(node))
            read.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    return model
