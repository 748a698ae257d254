"""Rules of operations that leave values as they are, or each along one axis: they move labels, part and join them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from dlx_deploy.nn.pruning.alignment import axes_of, labels_along, mix_axes, tie_aligned, to_axes
from dlx_deploy.nn.pruning.trace import NO_CHANNEL, Arguments, Labels, Operation, Rule, Trace, varying

__all__ = ["MOVES"]

Moving = Callable[[Trace, Operation, Arguments, Labels, Tensor], Labels | None]
"""The labels of one result, from those of the argument ``self``; ``None``: it cannot say."""


def _of_self(moving: Moving) -> Rule:
    """The rule that gives every result what ``moving`` says; where ``self`` has no labels it cannot say."""

    def rule(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
        labels = trace.of(given["self"])
        if labels is None:
            return False
        moved = [moving(trace, func, given, labels, out) for out in results]
        for out, new in zip(results, moved, strict=True):
            if new is None:
                return False
            trace.give(out, new)
        return True

    return rule


@_of_self
def _same(trace: Trace, func: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    """A copy; or something along an axis that leaves the others alone: softmax, roll, a part, parts."""
    along = [name for name in ("dim", "dims") if name in given]
    return mix_axes(trace, func, labels, axes_of(given[along[0]], labels.ndim) if along else ())


@_of_self
def _drop(trace: Trace, func: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    """One place, or every place, of an axis."""
    axis = given["dim"] % labels.ndim
    return mix_axes(trace, func, labels, [axis]).squeeze(axis)


@_of_self
def _flip(trace: Trace, _: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    """Channels in reverse stay in reverse when some are gone."""
    axes = set(axes_of(given["dims"], labels.ndim)) & set(varying(labels))
    return np.flip(labels, tuple(axes)).copy() if axes else labels


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


@_of_self
def _pad(trace: Trace, _: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels | None:
    """Places that padding adds along the channels hold none."""
    ndim, pad = labels.ndim, given["pad"]
    sides = [(0, 0)] * (ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    sides = [side if axis in varying(labels) else (0, 0) for axis, side in enumerate(sides)]
    if min(min(side) for side in sides) < 0:
        return None
    return np.pad(labels, sides, constant_values=NO_CHANNEL)


def _concatenate(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    tensors, axis = given["tensors"], given["dim"] % out.ndim
    known = [labels for t in tensors if (labels := trace.of(t)) is not None]
    if any(t.ndim != out.ndim for t in tensors):
        return False
    if all(labels.shape[axis] == 1 for labels in known):
        tied = tie_aligned(trace, tensors, out.ndim)
        trace.give(out, tied)
        return tied is not None
    shape = [1] * out.ndim
    shape[axis] = -1
    trace.give(out, np.concatenate([labels_along(trace, func, t, axis) for t in tensors]).reshape(shape))
    return True


def _stack(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    tied = tie_aligned(trace, given["tensors"], out.ndim - 1)
    trace.give(out, None if tied is None else np.expand_dims(tied, given["dim"] % out.ndim))
    return tied is not None


def _permute(trace: Trace, func: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
    (out,) = results
    source = given["self"]
    labels = trace.of(source)
    if labels is None:
        return func.overloadpacket.__name__ == "t" and trace.turn(source, out)
    if "dims" in given:
        order = list(axes_of(given["dims"], labels.ndim))
    else:
        order = list(range(labels.ndim))
        a, b = (given["dim0"], given["dim1"]) if "dim0" in given else (0, labels.ndim - 1)
        order[a], order[b] = order[b], order[a]
    trace.give(out, labels.transpose(order))
    return True


@_of_self
def _unsqueeze(trace: Trace, _: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    return np.expand_dims(labels, given["dim"] % out.ndim)


@_of_self
def _expand(trace: Trace, _: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    return to_axes(labels, out.ndim)


@_of_self
def _view(trace: Trace, _: Operation, given: Arguments, labels: Labels, out: Tensor) -> Labels:
    """Another shape: axes are matched in the smallest runs of equal size, each of which is reshaped by itself."""
    source = given["self"]
    shape: list[int] = []
    whole = []  # per axis of the old shape its size, where labels change along its run
    runs = _runs(tuple(source.shape), tuple(out.shape))
    for old, new in runs:
        changes = any(labels.shape[axis] > 1 for axis in old)
        whole += [source.shape[axis] if changes else 1 for axis in old]
        shape += [out.shape[axis] if changes else 1 for axis in new]
    seen = np.broadcast_to(labels, whole).reshape(shape)
    for _old, new in runs:
        for axis in new:
            first = seen.take([0], axis)
            seen = first if np.array_equal(seen, np.broadcast_to(first, seen.shape)) else seen
        cut = [axis for axis in new if seen.shape[axis] > 1]
        if len(cut) > 1:
            trace.cut(seen, cut)
    return seen


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


MOVES: Mapping[str, Rule] = {
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax", "roll", "cumsum"), _same),
    **dict.fromkeys(("alias", "detach", "_to_copy", "lift_fresh", "contiguous"), _same),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **dict.fromkeys(("select", "unbind"), _drop),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "_reshape_alias"), _view),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    "cat": _concatenate,
    "constant_pad_nd": _pad,
    "expand": _expand,
    "flip": _flip,
    "slice": _slice,
    "stack": _stack,
    "unsqueeze": _unsqueeze,
}
"""Operation → its rule."""
