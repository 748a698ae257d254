"""2:4 structured sparsity: of four weights in a row along the input at most two are not zero; no torch.

The pattern that sparse tensor cores compute twice as fast (Mishra et al. 2021, arXiv 2104.08378).
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import LAYERS, Index
from dlx_deploy.graph.quantization.layers import through_qdq, weight_axis

__all__ = ["two_four_layers"]

GROUP, KEPT = 4, 2


def two_four_layers(model: ModelProto) -> list[str]:
    """The names of the layers whose constant weights are 2:4 along their input channels; none that is all zeros."""
    index = Index(model)
    return [n.name for n in model.graph.node if n.op_type in LAYERS and _is_two_four(n, index)]


def _is_two_four(node: NodeProto, index: Index) -> bool:
    name = through_qdq(index, node.input[1]) or node.input[1]
    if name not in index.initializers:
        return False
    weight = index.array(name)
    if weight.ndim < 2:
        return False
    rows = np.moveaxis(weight, weight_axis(node, weight.ndim), 0)  # (out, in, ...)
    rows = np.moveaxis(rows, 1, -1)  # the input channels last, where groups of four lie
    if rows.shape[-1] % GROUP or not rows.any():
        return False
    return bool((np.count_nonzero(rows.reshape(-1, GROUP), axis=1) <= KEPT).all())
