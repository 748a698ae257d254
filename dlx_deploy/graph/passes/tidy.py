"""The exporter's graph made readable and lean: layer names, plain pooling, no leftovers; no torch."""

from __future__ import annotations

import ast

import onnx
from onnx import ModelProto, NodeProto, helper

from dlx_deploy.graph.model import Index, infer, int_attribute, tidy

__all__ = ["WRAPPED", "rewrite", "scope_of"]

WRAPPED = "model"
"""The name under which the exporter's wrapper holds the user's model."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SCOPES = "pkg.torch.onnx.name_scopes"


def rewrite(model: ModelProto) -> ModelProto:
    """The exporter's graph, edited in place: nodes carry module names, means are pooling, the rest is gone."""
    _name_nodes(model)
    _pool_globally(model)
    _strip_prefix(model)
    return tidy(model)


def _name_nodes(model: ModelProto) -> None:
    """``layer1.0.conv1/Conv``: the module that holds the weight, or else the one whose forward made the node."""
    taken = dict[str, int]()
    for node in model.graph.node:
        scope = _weight_scope(node, scope_of(node))
        inside = scope.removeprefix(WRAPPED).removeprefix(".") or "model"
        name = f"{inside if scope else 'preprocess'}/{node.op_type}"
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _weight_scope(node: NodeProto, scope: str) -> str:
    """The module of the node's weight if it lies beside ``scope`` (equal weights of other modules may be shared)."""
    module = node.input[1].rpartition(".")[0] if node.op_type in WEIGHTED and len(node.input) > 1 else ""
    beside = module.startswith(WRAPPED) and f"{scope}.".startswith(f"{module.rpartition('.')[0]}.")
    return module if beside else scope


def scope_of(node: NodeProto) -> str:
    """The module whose forward made a node of the exporter's graph, ``model.`` before it; empty for preprocessing."""
    found = next((p.value for p in node.metadata_props if p.key == SCOPES), "[]")
    scopes = [s for s in ast.literal_eval(found)[:-1] if s == WRAPPED or s.startswith(f"{WRAPPED}.")]
    return scopes[-1] if scopes else ""


def _pool_globally(model: ModelProto) -> None:
    """A mean over height and width as GlobalAveragePool, which runtimes have faster and INT8 kernels for."""
    shapes, initializers = infer(model), Index(model).initializers
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in initializers:
            continue
        x, out = node.input[0], node.output[0]
        axes = sorted(int(a) % 4 for a in onnx.numpy_helper.to_array(initializers[node.input[1]]).reshape(-1))
        if x not in shapes or len(shapes[x].shape) != 4 or axes != [2, 3]:
            continue
        keep = bool(int_attribute(node, "keepdims", 1))
        pooled = out if keep else f"{out}/pooled"
        name = node.name.replace("ReduceMean", "")
        new = [helper.make_node("GlobalAveragePool", [x], [pooled], name=f"{name}GlobalAveragePool")]
        if not keep:
            new.append(helper.make_node("Flatten", [pooled], [out], name=f"{name}Flatten", axis=1))
        model.graph.node.remove(node)
        for extra in reversed(new):
            model.graph.node.insert(position, extra)


def _strip_prefix(model: ModelProto) -> None:
    """Weights under the names that they have in the state dict."""
    prefix = f"{WRAPPED}."
    names = {t.name: t.name.removeprefix(prefix) for t in model.graph.initializer if t.name.startswith(prefix)}
    taken = {name for node in model.graph.node for name in [*node.input, *node.output]}
    names = {old: new for old, new in names.items() if new not in taken}
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
