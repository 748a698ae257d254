"""Names for people in the exporter's graph: nodes after their modules, weights as in the state dict."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import WEIGHTED
from dlx_deploy.graph.passes.base import Pass

__all__ = ["NAME_NODES", "STRIP_PREFIX", "WRAPPED", "scope_of"]

WRAPPED = "model"
"""The name under which the exporter's wrapper holds the user's model."""
SCOPES = "pkg.torch.onnx.name_scopes"


def _name_nodes(model: ModelProto) -> ModelProto:
    """``layer1.0.conv1/Conv``: the module that holds the weight, or else the one whose forward made the node."""
    taken = dict[str, int]()
    for node in model.graph.node:
        scope = _weight_scope(node, scope_of(node))
        inside = scope.removeprefix(WRAPPED).removeprefix(".") or "model"
        name = f"{inside if scope else 'preprocess'}/{node.op_type}"
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
    return model


def _weight_scope(node: NodeProto, scope: str) -> str:
    """The module of the node's weight if it lies beside ``scope`` (equal weights of other modules may be shared)."""
    module = node.input[1].rpartition(".")[0] if node.op_type in WEIGHTED and len(node.input) > 1 else ""
    beside = module.startswith(WRAPPED) and f"{scope}.".startswith(f"{module.rpartition('.')[0]}.")
    return module if beside else scope


def scope_of(node: NodeProto) -> str:
    """The module whose forward made a node of the exporter's graph, ``model.`` before it; empty for preprocessing."""
    stored = next((p.value for p in node.metadata_props if p.key == SCOPES), "[]")
    scopes = [s for s in ast.literal_eval(stored)[:-1] if s == WRAPPED or s.startswith(f"{WRAPPED}.")]
    return scopes[-1] if scopes else ""


def _strip_prefix(model: ModelProto) -> ModelProto:
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
    return model


def _alike(model: ModelProto) -> Sequence[str]:
    """Names that several nodes have: a pattern, a plan or a report could not tell them apart."""
    counts = Counter(node.name for node in model.graph.node)
    return [f"{n} nodes are named {name!r}" for name, n in counts.items() if n > 1]


NAME_NODES = Pass("name-nodes", _name_nodes, ensures=_alike)
STRIP_PREFIX = Pass("strip-prefix", _strip_prefix)
