"""2:4 structured sparsity: of four weights in a row along the input at most two are not zero; no torch.

The pattern that sparse tensor cores compute twice as fast (Mishra et al. 2021, arXiv 2104.08378).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import LAYERS, Index
from dlx_deploy.graph.quantization.layers import through_qdq, weight_axis

__all__ = ["check_kept_sparse", "check_sparse_modules", "two_four_layers"]

GROUP, KEPT = 4, 2


def two_four_layers(model: ModelProto) -> list[str]:
    """The names of the layers whose constant weights are 2:4 along their input channels; none that is all zeros."""
    index = Index(model)
    return [n.name for n in model.graph.node if n.op_type in LAYERS and _is_two_four(n, index)]


def check_sparse_modules(model: ModelProto, modules: Sequence[str]) -> int:
    """In how many layers of these modules of a torch network the pattern is in the exported graph.

    A module that no layer with constant weights comes from is not in the graph (a head that only training uses, say).

    Raises:
        StageFailed: the weights of a layer have lost the pattern.
    """
    index, named = Index(model), set(modules)
    layers = [n for n in model.graph.node if n.op_type in LAYERS and n.name.rpartition("/")[0] in named]
    layers = [n for n in layers if _weight_of(n, index)]
    _refuse([n.name for n in layers if _is_dense(n, index)], "the exported graph")
    return len(layers)


def check_kept_sparse(before: ModelProto, after: ModelProto) -> None:
    """What is 2:4 in ``before`` is so in ``after``, by name.

    Raises:
        StageFailed: a layer has lost the pattern.
    """
    sparse, index = set(two_four_layers(before)), Index(after)
    layers = [n for n in after.graph.node if n.name in sparse and n.op_type in LAYERS and _weight_of(n, index)]
    _refuse([n.name for n in layers if _is_dense(n, index)], "the quantized graph")


def _refuse(dense: Sequence[str], where: str) -> None:
    if dense:
        more = f" and {len(dense) - 3} more" if len(dense) > 3 else ""
        raise StageFailed(
            f"in {where} the weights of {', '.join(dense[:3])}{more} are no longer 2:4, and sparse kernels would "
            "compute something else; this is a fault of dlx-deploy: please report it, and set prune.sparsity = 'none'"
        )


def _weight_of(node: NodeProto, index: Index) -> str:
    """The name of the constant that a layer's weights are, behind Q/DQ or not; empty if they are none."""
    name = through_qdq(index, node.input[1]) or node.input[1]
    return name if name in index.initializers else ""


def _is_dense(node: NodeProto, index: Index) -> bool:
    """Whether its weights break the pattern; all zeros do not, as INT8 makes of tiny ones, and an export of one part
    of a packed weight."""
    return bool(index.array(_weight_of(node, index)).any()) and not _is_two_four(node, index)


def _is_two_four(node: NodeProto, index: Index) -> bool:
    name = _weight_of(node, index)
    if not name:
        return False
    weight = index.array(name)
    if weight.ndim < 2:
        return False
    rows = np.moveaxis(weight, weight_axis(node, weight.ndim), 0)  # (out, in, ...)
    rows = np.moveaxis(rows, 1, -1)  # the input channels last, where groups of four lie
    if rows.shape[-1] % GROUP or not rows.any():
        return False
    return bool((np.count_nonzero(rows.reshape(-1, GROUP), axis=1) <= KEPT).all())
