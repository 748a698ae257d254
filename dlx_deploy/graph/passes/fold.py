"""Layer weights that the graph computes from constants, computed here; no torch.

The exporter folds small constants alone. A convolution whose weights are standardised in ``forward`` would keep doing
so for every image, and nothing that looks for constant weights (quantization, costs, TensorRT) would find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from dlx_deploy.graph.model import WEIGHTED, Index, load, to_bytes
from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.passes.names import scope_of
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.untyped import Array

__all__ = ["FOLD_WEIGHTS", "batch_norms_folded", "constants_of", "drop_unread", "fold_weights"]

RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def fold_weights(model: ModelProto) -> ModelProto:
    """``model`` with every computed weight or bias as an initializer, and batch norms behind them folded in.

    The nodes that computed them are gone, unless something else reads them. Without any, ``model`` itself comes back.
    """
    index = Index(model)
    fixed = constants_of(model)
    wanted = list(dict.fromkeys(name for node in _layers(model) for name in node.input[1:] if name in fixed))
    if not wanted:
        return model
    names = _names(index, wanted)
    model = load(model)
    for name, value in zip(wanted, _computed(index, wanted), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, names[name]))
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
    drop_unread(model)
    return batch_norms_folded(model)


def constants_of(model: ModelProto) -> set[str]:
    """The tensors that nodes compute from constants alone, the same for every input."""
    constant = {t.name for t in model.graph.initializer}
    computed: set[str] = set()
    for node in model.graph.node:
        plain = node.op_type not in RANDOM and not any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        if plain and all(not name or name in constant or name in computed for name in node.input):
            computed.update(node.output)
    return computed


def _layers(model: ModelProto) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type in WEIGHTED)


def _computed(index: Index, wanted: list[str]) -> list[Array]:
    """The values of ``wanted``, by ONNX Runtime on the part of the graph that makes them."""
    needed, nodes = set(wanted), []
    for node in reversed(index.model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    constants = [tensor for name, tensor in index.initializers.items() if name in needed]
    outputs = [ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(nodes[::-1], "weights", [], outputs, constants)
    part = helper.make_model(graph, opset_imports=index.model.opset_import, ir_version=index.model.ir_version)
    values = open_session(to_bytes(part), exact_qdq=False, threads=1).run(wanted, {})
    return values


def _names(index: Index, wanted: list[str]) -> dict[str, str]:
    """Computed tensor → a free name under the module of the layer that reads it: that is what names the layer."""
    taken = {*index.initializers, *index.producer}
    names = dict[str, str]()
    for node in _layers(index.model):
        for name, kind in zip(node.input[1:], ("weight", "bias"), strict=False):
            if name not in wanted or name in names:
                continue
            names[name] = f"{scope_of(node)}.{kind}"
            while names[name] in taken:
                names[name] += "_folded"
            taken.add(names[name])
    return names


def drop_unread(model: ModelProto) -> None:
    """Take the nodes out of ``model`` that no output depends on."""
    read = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if set(node.output) & read:
            read |= set(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def batch_norms_folded(model: ModelProto) -> ModelProto:
    """``model`` with batch norms folded into the layers before them."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common

    rules = [
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
    ]
    folded: ModelProto = rewrite(model, rules)
    return folded


def _computed_weights(model: ModelProto) -> Sequence[str]:
    """Layers whose weights are still computed from constants."""
    fixed = constants_of(model)
    layers = [(node.name, name) for node in _layers(model) for name in node.input[1:] if name in fixed]
    return [f"{layer} computes its constant {name!r} for every input" for layer, name in layers]


FOLD_WEIGHTS = Pass("fold-weights", fold_weights, ensures=_computed_weights)
