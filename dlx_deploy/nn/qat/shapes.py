"""Operators that move numbers and compute shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.qat.attributes import Attributes, Given, Unsupported, torch_type

__all__ = [
    "cast",
    "concat",
    "constant_of_shape",
    "expand",
    "flatten",
    "gather",
    "pad",
    "reshape",
    "shape",
    "slice_",
    "split",
    "squeeze",
    "transpose",
    "unsqueeze",
]


def cast(at: Attributes, given: Given) -> Tensor:
    """Cast."""
    return _first(given).to(torch_type(at.integer("to", 1)))


def concat(at: Attributes, given: Given) -> Tensor:
    """Concat."""
    return torch.cat([x for x in given if x is not None], dim=at.integer("axis", 0))


def constant_of_shape(at: Attributes, given: Given) -> Tensor:
    """ConstantOfShape of zeros, or of one other number."""
    import onnx

    value = at.values.get("value")
    sizes = _first(given).tolist()
    if value is None:
        return torch.zeros(sizes, device=_first(given).device)
    number = torch.from_numpy(onnx.numpy_helper.to_array(value).copy()).to(_first(given).device)  # type: ignore[arg-type]
    return number.reshape(()).expand(sizes)


def expand(at: Attributes, given: Given) -> Tensor:
    """Expand, by the rules of broadcasting."""
    x, sizes = _two(given)
    ones = torch.ones((), dtype=x.dtype, device=x.device).expand([int(n) for n in sizes.tolist()])
    return torch.broadcast_tensors(x, ones)[0]  # type: ignore[no-untyped-call, no-any-return]


def flatten(at: Attributes, given: Given) -> Tensor:
    """Flatten to a matrix."""
    x, axis = _first(given), at.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


def gather(at: Attributes, given: Given) -> Tensor:
    """Gather."""
    x, rows = _two(given)
    axis = at.integer("axis", 0) % x.ndim
    rows = torch.where(rows < 0, rows + x.shape[axis], rows)
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(rows, x)
    found = x.index_select(axis, rows.reshape(-1))
    return found.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :])


def pad(at: Attributes, given: Given) -> Tensor:
    """Pad; of all axes, or of those that are named."""
    x, amounts = _two(given)
    value, axes = (given[i] if len(given) > i else None for i in (2, 3))
    pads = [int(n) for n in amounts.tolist()]
    named = [int(n) % x.ndim for n in axes.tolist()] if axes is not None else list(range(x.ndim))
    whole = {axis: (pads[i], pads[i + len(named)]) for i, axis in enumerate(named)}
    ordered = [n for axis in reversed(range(x.ndim)) for n in whole.get(axis, (0, 0))]
    mode = at.text("mode", "constant")
    if mode == "constant":
        return F.pad(x, ordered, value=float(value) if value is not None else 0.0)
    if mode in ("reflect", "edge") and not any(ordered[2 * (x.ndim - 2) :]):
        return F.pad(x, ordered[: 2 * (x.ndim - 2)], mode={"edge": "replicate"}.get(mode, mode))
    raise Unsupported(f"padding by {mode}")


def reshape(at: Attributes, given: Given) -> Tensor:
    """Reshape; 0 keeps a size."""
    x, sizes = _two(given)
    wanted = [int(n) for n in sizes.tolist()]
    if not at.integer("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def shape(at: Attributes, given: Given) -> Tensor:
    """Shape, or a part of it."""
    x = _first(given)
    end = at.integer("end", x.ndim)
    return torch.tensor(list(x.shape)[at.integer("start", 0) : end], dtype=torch.int64, device=x.device)


def slice_(at: Attributes, given: Given) -> Tensor:
    """Slice."""
    x, starts, ends = _first(given), given[1], given[2]
    assert starts is not None
    assert ends is not None
    axes, steps = (given[i] if len(given) > i else None for i in (3, 4))
    count = len(starts)
    named = axes.tolist() if axes is not None else list(range(count))
    by = steps.tolist() if steps is not None else [1] * count
    for axis, start, end, step in zip(named, starts.tolist(), ends.tolist(), by, strict=True):
        first, last, every = slice(start, end, step).indices(x.shape[axis])
        if every < 0:
            x = x.index_select(axis, torch.arange(first, last, every, device=x.device))
        else:
            cut = [slice(None)] * x.ndim
            cut[axis % x.ndim] = slice(first, max(last, first), every)
            x = x[tuple(cut)]
    return x


def split(at: Attributes, given: Given) -> tuple[Tensor, ...]:
    """Split, by sizes or into as many parts as there are outputs (``parts``, which the network sets)."""
    x, axis = _first(given), at.integer("axis", 0)
    sizes = given[1] if len(given) > 1 else None
    if sizes is not None:
        return torch.split_with_sizes(x, [int(n) for n in sizes.tolist()], dim=axis)
    parts = at.integer("num_outputs", at.integer("parts", 1))
    return torch.chunk(x, parts, dim=axis)


def squeeze(at: Attributes, given: Given) -> Tensor:
    """Squeeze."""
    axes = given[1] if len(given) > 1 else None
    return _first(given).squeeze() if axes is None else _first(given).squeeze(tuple(axes.tolist()))


def transpose(at: Attributes, given: Given) -> Tensor:
    """Transpose."""
    x = _first(given)
    return x.permute(at.integers("perm") or list(reversed(range(x.ndim))))


def unsqueeze(at: Attributes, given: Given) -> Tensor:
    """Unsqueeze."""
    x, axes = _two(given)
    rank = x.ndim + len(axes)
    for axis in sorted(int(n) % rank for n in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _first(given: Given) -> Tensor:
    x = given[0]
    assert x is not None
    return x


def _two(given: Given) -> tuple[Tensor, Tensor]:
    x, other = given[:2]
    assert x is not None
    assert other is not None
    return x, other
