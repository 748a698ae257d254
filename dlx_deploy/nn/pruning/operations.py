"""What each operation does to the labels of channels: the list of all operations that may lie inside a pruned group.

A rule answers whether it could say; what has no rule, or one that could not, fixes the channels that reach it. An
operation that mixes what lies along an axis ties it: such channels all go together, or, as is usual, none does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.nn.pruning.trace import NO_CHANNEL, Arguments, Labels, Layer, Operation, Rule, Trace, varying

__all__ = ["rule_for"]


def rule_for(func: Operation) -> Rule | None:
    """The rule of ``func``, an operation of torch's lowest level; ``None``: it is not known to keep channels apart."""
    name = func.overloadpacket.__name__
    if name in _RULES:
        return _RULES[name]
    return _elementwise if torch.Tag.pointwise in func.tags else None


def _convolution(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    layer = trace.layer(nn.Conv2d, {"weight": given["weight"], "bias": given["bias"]})
    if layer is None or layer.outputs is None or given["transposed"] or out.ndim != 4:
        return False
    channels = given["input"].shape[1]
    read = _along(trace, func, given["input"], 1)
    _use(trace, layer, read, out.numel() // len(layer.outputs))
    groups = given["groups"]
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
    read = _along(trace, func, rows, rows.ndim - 1)
    _use(trace, layer, read, out.numel() // len(layer.outputs))
    trace.give(out, layer.outputs.reshape(1, -1))
    return True


def _batch_norm(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    roles = {role: given.get(role) for role in ("weight", "bias", "running_mean", "running_var")}
    read = _along(trace, func, given["input"], 1)
    if any(tensor is not None for tensor in roles.values()):
        layer = trace.layer(_BatchNorm, roles)
        if layer is None:
            return False
        _use(trace, layer, read, 0)
    trace.give(results[0], trace.of(given["input"]))
    return True


def _along(trace: Trace, func: Operation, tensor: Tensor, axis: int) -> Labels:
    """int64[size]: the label at each place along ``axis``; what changes along others is mixed."""
    labels = trace.of(tensor)
    if labels is None:
        return np.full(tensor.shape[axis], NO_CHANNEL, dtype=np.int64)
    mixed = _mixed(trace, func, labels, [other for other in varying(labels) if other != axis])
    return np.broadcast_to(mixed.ravel(), tensor.shape[axis])


def _mixed(trace: Trace, func: Operation, labels: Labels, axes: Iterable[int]) -> Labels:
    """``labels`` with one place along each of ``axes``, whose channels ``func`` mixes: all of these go, or none.

    So nothing is lost on axes along which one class lies, such as the parallel paths that were stacked.
    """
    for axis in axes:
        if labels.shape[axis] > 1:
            one = labels.take([0], axis)
            trace.mix(labels, one, func)
            labels = one
    return labels


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
    aligned = [_aligned(labels, out.ndim) for t in tensors if (labels := trace.of(t)) is not None]
    tied = _tied(trace, tensors, out.ndim)
    if tied is None or (func._schema.is_mutable and trace.of(given["self"]) is None):
        return False  # what else looks at the memory that is written to would not know
    if func.overloadpacket.__name__.startswith(("add", "sub", "rsub")):
        trace.sums += [other for other in aligned[1:] if not np.array_equal(other, aligned[0])]
    trace.give(out, tied)
    return True


def _is_bias(trace: Trace, tensor: Tensor, labels: Labels) -> bool:
    """Whether ``tensor`` is the bias of the linear layer of ``labels``: for some shapes torch adds it last."""
    layer = trace.layer(nn.Linear, {"bias": tensor})
    return layer is not None and layer.outputs is not None and np.array_equal(layer.outputs, labels.ravel())


def _tied(trace: Trace, tensors: Sequence[Tensor], ndim: int) -> Labels | None:
    """The labels of what ``tensors`` are combined to, place by place, broadcast to ``ndim`` axes; they are tied.

    ``None``: one is a parameter or a constant with a value per channel, which would have to shrink as well.
    """
    aligned = [_aligned(labels, ndim) for t in tensors if (labels := trace.of(t)) is not None]
    if not aligned:
        return None
    together = np.broadcast_arrays(*aligned)
    for tensor in tensors:
        shape = (1,) * (ndim - tensor.ndim) + tuple(tensor.shape)
        alike = all(shape[axis] == 1 for axis in varying(together[0]))
        if trace.of(tensor) is None and not alike and not _is_bias(trace, tensor, aligned[0]):
            return None
    for other in together[1:]:
        trace.tie(together[0], other)
    return together[0]


def _aligned(labels: Labels, ndim: int) -> Labels:
    return labels.reshape((1,) * (ndim - labels.ndim) + labels.shape)


def _flat(value: object) -> list[Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, Tensor)]


def _pool(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Pooling, resizing and the like over the last two axes."""
    labels = trace.of(given["self"] if "self" in given else given["input"])
    if labels is None:
        return False
    trace.give(results[0], _mixed(trace, func, labels, (labels.ndim - 2, labels.ndim - 1)))
    return True


def _reduce(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    labels = trace.of(given["self"])
    if labels is None:
        return False
    axes = _axes(given.get("dim"), labels.ndim)
    labels = _mixed(trace, func, labels, axes)
    trace.give(results[0], labels if given.get("keepdim") else labels.squeeze(axes))
    return True


def _axes(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """``dim`` of an operation as axes from the front; none given means all."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return tuple(range(ndim))
    return tuple(d % ndim for d in ([dim] if isinstance(dim, int) else dim))


def _same(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """A copy; or something along an axis that leaves the others alone: softmax, roll, a part, parts."""
    labels = trace.of(given["self"])
    if labels is None:
        return False
    along = [name for name in ("dim", "dims") if name in given]
    labels = _mixed(trace, func, labels, _axes(given[along[0]], labels.ndim) if along else ())
    for part in results:
        trace.give(part, labels)
    return True


def _drop(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """One place, or every place, of an axis."""
    labels = trace.of(given["self"])
    if labels is None:
        return False
    axis = given["dim"] % labels.ndim
    for part in results:
        trace.give(part, _mixed(trace, func, labels, [axis]).squeeze(axis))
    return True


def _flip(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Channels in reverse stay in reverse when some are gone."""
    (out,) = results
    labels = trace.of(given["self"])
    if labels is None:
        return False
    axes = set(_axes(given["dims"], labels.ndim)) & set(varying(labels))
    trace.give(out, np.flip(labels, tuple(axes)).copy() if axes else labels)
    return True


def _split(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Equal parts stay equal, and keep their places, when each loses the same channels."""
    source = given["self"]
    labels, axis = trace.of(source), given["dim"] % source.ndim
    if labels is None or labels.shape[axis] == 1 or len({part.shape[axis] for part in results}) != 1:
        return _same(trace, func, given, results)
    parts = np.split(labels, len(results), axis)
    for part, piece in zip(results, parts, strict=True):
        trace.tie(parts[0], piece)
        trace.give(part, piece)
    return True


def _slice(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    if out.shape != given["self"].shape:
        return _same(trace, func, given, results)
    trace.give(out, trace.of(given["self"]))
    return True


def _pad(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Places that padding adds along the channels hold none."""
    (out,) = results
    labels = trace.of(given["self"])
    if labels is None:
        return False
    ndim, pad = labels.ndim, given["pad"]
    sides = [(0, 0)] * (ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    sides = [side if axis in varying(labels) else (0, 0) for axis, side in enumerate(sides)]
    if min(min(side) for side in sides) < 0:
        return False
    trace.give(out, np.pad(labels, sides, constant_values=NO_CHANNEL))
    return True


def _concatenate(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    tensors, axis = given["tensors"], given["dim"] % out.ndim
    known = [labels for t in tensors if (labels := trace.of(t)) is not None]
    if any(t.ndim != out.ndim for t in tensors):
        return False
    if all(labels.shape[axis] == 1 for labels in known):
        tied = _tied(trace, tensors, out.ndim)
        trace.give(out, tied)
        return tied is not None
    shape = [1] * out.ndim
    shape[axis] = -1
    trace.give(out, np.concatenate([_along(trace, func, t, axis) for t in tensors]).reshape(shape))
    return True


def _stack(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    tied = _tied(trace, given["tensors"], out.ndim - 1)
    trace.give(out, None if tied is None else np.expand_dims(tied, given["dim"] % out.ndim))
    return tied is not None


def _permute(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    source = given["self"]
    labels = trace.of(source)
    if labels is None:
        return func.overloadpacket.__name__ == "t" and trace.turn(source, out)
    if "dims" in given:
        order = list(_axes(given["dims"], labels.ndim))
    else:
        order = list(range(labels.ndim))
        a, b = (given["dim0"], given["dim1"]) if "dim0" in given else (0, labels.ndim - 1)
        order[a], order[b] = order[b], order[a]
    trace.give(out, labels.transpose(order))
    return True


def _unsqueeze(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    labels = trace.of(given["self"])
    if labels is None:
        return False
    trace.give(out, np.expand_dims(labels, given["dim"] % out.ndim))
    return True


def _expand(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    labels = trace.of(given["self"])
    if labels is None:
        return False
    trace.give(out, _aligned(labels, out.ndim))
    return True


def _view(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Another shape: axes are matched in the smallest runs of equal size, each of which is reshaped by itself."""
    (out,) = results
    source = given["self"]
    labels = trace.of(source)
    if labels is None:
        return False
    shape: list[int] = []
    whole = []  # per axis of the old shape its size, where labels change along its run
    runs = _runs(tuple(source.shape), tuple(out.shape))
    for old, new in runs:
        changes = any(labels.shape[axis] > 1 for axis in old)
        whole += [source.shape[axis] if changes else 1 for axis in old]
        shape += [out.shape[axis] if changes else 1 for axis in new]
    seen = np.broadcast_to(labels, whole).reshape(shape)
    for _old, new in runs:
        cut = [axis for axis in new if seen.shape[axis] > 1]
        for axis in cut[:-1]:  # channels cut into equal parts: each part must lose the same
            trace.tie(seen, np.take(seen, [0], axis))
    trace.give(out, seen)
    return True


def _runs(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Neighbouring axes of two shapes in the smallest runs with the same number of elements."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = ([i], []) if i < len(old) else ([], [j])
        i, j = i + len(a), j + len(b)
        while math.prod(old[k] for k in a) != math.prod(new[k] for k in b):
            if math.prod(old[k] for k in a) < math.prod(new[k] for k in b):
                a.append(i)
                i += 1
            else:
                b.append(j)
                j += 1
        runs.append((a, b))
    return runs


def _creates(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    """Takes its shape from a tensor, and nothing else: a constant."""
    return True


_RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(("addmm", "mm"), _linear),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys(("hardswish", "hardswish_", "gelu", "_prelu_kernel", "celu", "selu", "clone"), _elementwise),
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_max_pool2d"), _pool),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _pool),
    **dict.fromkeys(("reflection_pad2d", "replication_pad2d"), _pool),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "prod", "var", "std", "linalg_vector_norm", "logsumexp"), _reduce),
    **dict.fromkeys(("_softmax", "_log_softmax", "roll", "cumsum"), _same),
    **dict.fromkeys(("alias", "detach", "_to_copy", "lift_fresh", "contiguous"), _same),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **dict.fromkeys(("select", "unbind"), _drop),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "_reshape_alias"), _view),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    **dict.fromkeys(("empty_like", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"), _creates),
    "cat": _concatenate,
    "constant_pad_nd": _pad,
    "expand": _expand,
    "flip": _flip,
    "slice": _slice,
    "stack": _stack,
    "unsqueeze": _unsqueeze,
}
