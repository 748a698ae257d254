"""Residual sums, and which of their inputs is the identity."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from dlx_deploy.graph.model import Index

__all__ = ["residuals"]


def residuals(index: Index, layers: Sequence[NodeProto]) -> dict[str, str]:
    """Output of a residual sum → the tensor that is its identity, for sums fed by a convolution of ``layers``.

    Where both inputs come from convolutions, the one with fewer nodes before it is the shortcut and plays the identity;
    of two with as many, the second input does.
    """
    convolutions = {node.output[0] for node in layers if node.op_type == "Conv"}
    depth = _depths(index)
    identities = {}
    for node in index.model.graph.node:
        if node.op_type != "Add" or any(name in index.initializers for name in node.input):
            continue
        inputs = list(node.input)
        fusable = [n for n in inputs if n in convolutions and len(index.readers(n)) == 1 and inputs.count(n) == 1]
        if fusable:
            main = max(fusable, key=lambda name: depth[name])  # the first of equals
            identities[node.output[0]] = inputs[1 - inputs.index(main)]
    return identities


def _depths(index: Index) -> dict[str, int]:
    """Tensor → the number of nodes on the longest way to it."""
    depth: dict[str, int] = {}
    for node in index.model.graph.node:
        here = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update((name, here) for name in node.output)
    return depth
