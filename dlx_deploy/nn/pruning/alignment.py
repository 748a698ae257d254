"""Labels of a tensor along one of its axes, with other axes, and of several tensors place by place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from dlx_deploy.nn.pruning.trace import NO_CHANNEL, Labels, Operation, Trace, varying

__all__ = ["axes_of", "labels_along", "mix_axes", "tie_aligned", "to_axes"]


def labels_along(trace: Trace, func: Operation, tensor: Tensor, axis: int) -> Labels:
    """int64[size]: the label at each place along ``axis``; what changes along others is mixed."""
    labels = trace.of(tensor)
    if labels is None:
        return np.full(tensor.shape[axis], NO_CHANNEL, dtype=np.int64)
    mixed = mix_axes(trace, func, labels, [other for other in varying(labels) if other != axis])
    return np.broadcast_to(mixed.ravel(), tensor.shape[axis])


def mix_axes(trace: Trace, func: Operation, labels: Labels, axes: Iterable[int]) -> Labels:
    """``labels`` with one place along each of ``axes``, whose channels ``func`` mixes: all of these go, or none.

    So nothing is lost on axes along which one class lies, such as the parallel paths that were stacked.
    """
    for axis in axes:
        if labels.shape[axis] > 1:
            one = labels.take([0], axis)
            trace.mix(labels, one, func)
            labels = one
    return labels


def _is_bias(trace: Trace, tensor: Tensor, labels: Labels) -> bool:
    """Whether ``tensor`` is the bias of the linear layer of ``labels``: for some shapes torch adds it last."""
    layer = trace.layer(nn.Linear, {"bias": tensor})
    return layer is not None and layer.outputs is not None and np.array_equal(layer.outputs, labels.ravel())


def tie_aligned(trace: Trace, tensors: Sequence[Tensor], ndim: int) -> Labels | None:
    """The labels of what ``tensors`` are combined to, place by place, broadcast to ``ndim`` axes; they are tied.

    ``None``: one is a parameter or a constant with a value per channel, which would have to shrink as well.
    """
    aligned = [to_axes(labels, ndim) for t in tensors if (labels := trace.of(t)) is not None]
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


def to_axes(labels: Labels, ndim: int) -> Labels:
    """``labels`` with ``ndim`` axes, new ones of size 1 in front."""
    return labels.reshape((1,) * (ndim - labels.ndim) + labels.shape)


def axes_of(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """``dim`` of an operation as axes from the front; none given means all."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return tuple(range(ndim))
    return tuple(d % ndim for d in ([dim] if isinstance(dim, int) else dim))
