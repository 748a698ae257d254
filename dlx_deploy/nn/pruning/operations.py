"""What each operation does to the labels of channels: the list of all operations that may lie inside a pruned group.

A rule answers whether it could say; what has no rule, or one that could not, fixes the channels that reach it. An
operation that mixes what lies along an axis ties it: such channels all go together, or, as is usual, none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.nn.pruning.alignment import axes_of, labels_along, mix_axes, tie_aligned, to_axes
from dlx_deploy.nn.pruning.moves import MOVES
from dlx_deploy.nn.pruning.trace import Arguments, Labels, Layer, Operation, Rule, Trace

__all__ = ["rule_for"]


def rule_for(func: Operation) -> Rule | None:
    """The rule of ``func``, an operation of torch's lowest level; ``None``: it is not known to keep channels apart."""
    name = func.overloadpacket.__name__
    if name in _RULES:
        return _RULES[name]
    return _elementwise if torch.Tag.pointwise in func.tags else None


def _convolution(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    transposed, groups = given["transposed"], given["groups"]
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = trace.layer(kind, {"weight": given["weight"], "bias": given["bias"]})
    if layer is None or layer.outputs is None or out.ndim != 4 or (transposed and groups > 1):
        return False
    channels = given["input"].shape[1]
    read = labels_along(trace, func, given["input"], 1)
    # A transposed convolution applies its weights at each place that it reads, another at each that it gives.
    places = given["input"].numel() // channels if transposed else out.numel() // len(layer.outputs)
    _use(trace, layer, read, places)
    if groups > 1:
        inputs, outputs = read.reshape(groups, -1), layer.outputs.reshape(groups, -1)
        if groups == channels:
            trace.tie(inputs, outputs)  # depthwise: each channel makes its own
        else:  # every block must lose the same
            trace.tie(inputs, inputs[:1])
            trace.tie(outputs, outputs[:1])
    trace.give(out, layer.outputs.reshape(1, -1, 1, 1))
    return True


def _linear(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """``mm`` and ``addmm`` with the transposed weight of a linear layer."""
    (out,) = results
    rows, weight = (given["mat1"], given["mat2"]) if "mat1" in given else (given["self"], given["mat2"])
    bias = given["self"] if "mat1" in given else None
    layer = trace.layer(nn.Linear, {"weight": weight, "bias": bias})
    if layer is None or layer.outputs is None or given.get("beta", 1) != 1 or given.get("alpha", 1) != 1:
        return False
    read = labels_along(trace, func, rows, rows.ndim - 1)
    _use(trace, layer, read, out.numel() // len(layer.outputs))
    trace.give(out, layer.outputs.reshape(1, -1))
    return True


def _batch_norm(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    roles = {role: given.get(role) for role in ("weight", "bias", "running_mean", "running_var")}
    read = labels_along(trace, func, given["input"], 1)
    if any(tensor is not None for tensor in roles.values()):
        layer = trace.layer(_BatchNorm, roles)
        if layer is None:
            return False
        _use(trace, layer, read, 0)
    trace.give(results[0], trace.of(given["input"]))
    return True


def _use(trace: Trace, layer: Layer, read: Labels, rows: int) -> None:
    if layer.inputs:
        trace.tie(read, layer.inputs[0])  # the same weights read both
    layer.inputs.append(read)
    layer.rows += rows


def _elementwise(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    if len(results) != 1:
        return False  # frexp: a mantissa and an exponent
    (out,) = results
    tensors = [t for value in given.values() for t in _flat(value)]
    aligned = [to_axes(labels, out.ndim) for t in tensors if (labels := trace.of(t)) is not None]
    tied = tie_aligned(trace, tensors, out.ndim)
    if tied is None or (func._schema.is_mutable and trace.of(given["self"]) is None):
        return False  # what else looks at the memory that is written to would not know
    if func.overloadpacket.__name__.startswith(("add", "sub", "rsub")):
        trace.sums += [other for other in aligned[1:] if not np.array_equal(other, aligned[0])]
    trace.give(out, tied)
    return True


def _flat(value: object) -> list[Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, Tensor)]


def _pool(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Pooling, resizing and the like over the last two axes."""
    labels = trace.of(given["self"] if "self" in given else given["input"])
    if labels is None:
        return False
    trace.give(results[0], mix_axes(trace, func, labels, (labels.ndim - 2, labels.ndim - 1)))
    return True


def _reduce(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    labels = trace.of(given["self"])
    if labels is None:
        return False
    axes = axes_of(given.get("dim"), labels.ndim)
    labels = mix_axes(trace, func, labels, axes)
    trace.give(results[0], labels if given.get("keepdim") else labels.squeeze(axes))
    return True


def _attention(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Scaled dot-product attention of query, key and value [..., heads, places, width]: each head by itself."""
    sources = [given[role] for role in ("query", "key", "value")]
    known = [labels for source in sources if (labels := trace.of(source)) is not None]
    mask = given.get("attn_mask")
    unlike = len({source.shape[:-2] for source in sources}) > 1
    if len(known) < len(sources) or unlike or trace.of(mask) is not None:
        return False
    query, key, value = (mix_axes(trace, func, labels, (labels.ndim - 2,)) for labels in known)
    per_head = mask is not None and any(
        size > 1 and value.shape[-axis] > 1 for axis, size in enumerate(reversed(mask.shape), 1) if axis > 2
    )
    if per_head:
        return False  # it would have to shrink
    for labels in (query, key):
        trace.tie(mix_axes(trace, func, labels, (labels.ndim - 1,)), value)
    trace.give(results[0], value)
    return True


def _products(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """``bmm``: of matrices [N, I, K] and [N, K, J] products, each by itself; the sum over K mixes."""
    (out,) = results
    sides = [(given["self"], 2), (given["mat2"], 1)]
    known = [mix_axes(trace, func, labels, [axis]) for t, axis in sides if (labels := trace.of(t)) is not None]
    if len(known) < len(sides):
        return False
    left, right = np.broadcast_arrays(*known)
    trace.tie(left, right)
    if left.shape[0] > 1:
        trace.products.append((left[:, 0, 0], given["self"].shape[2] * out[0].numel()))
    trace.give(out, left)
    return True


def _creates(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Takes its shape from a tensor, and nothing else: a constant."""
    return True


_RULES: Mapping[str, Rule] = {
    **MOVES,
    "convolution": _convolution,
    **dict.fromkeys(("addmm", "mm"), _linear),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys(("hardswish", "hardswish_", "gelu", "_prelu_kernel", "celu", "selu", "clone"), _elementwise),
    "bmm": _products,
    **dict.fromkeys(("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"), _attention),
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_max_pool2d"), _pool),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _pool),
    **dict.fromkeys(("reflection_pad2d", "replication_pad2d"), _pool),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "prod", "var", "std", "linalg_vector_norm", "logsumexp"), _reduce),
    **dict.fromkeys(("empty_like", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"), _creates),
}
