"""Operators that look at neighbourhoods: convolutions, pooling, resizing; tensors are [N, C, ...]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.qat.attributes import Attributes, Given, Unsupported
from dlx_deploy.nn.training.layouts import is_unsafe_shape

__all__ = ["average_pool", "conv", "conv_transpose", "max_pool", "resize"]

_CONVS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX_POOLS: tuple[Callable[..., Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOLS: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def conv(at: Attributes, given: Given) -> Tensor:
    """Conv."""
    x, weight, bias = _three(given)
    rank = weight.ndim - 2
    strides = at.integers("strides") or [1] * rank
    begins, ends = _pads(at, rank)
    groups = at.integer("group", 1)
    if begins != ends:
        x, begins = F.pad(x, _torch_pads(begins, ends)), [0] * rank
    if is_unsafe_shape(weight.shape, strides, begins, groups):
        # ``contiguous`` would leave the strides of a 1x1 kernel, off which torch reads the layout.
        x, weight = (t.clone(memory_format=torch.contiguous_format) for t in (x, weight))
    return _CONVS[rank - 1](x, weight, bias, strides, begins, at.integers("dilations") or 1, groups)


def conv_transpose(at: Attributes, given: Given) -> Tensor:
    """ConvTranspose."""
    x, weight, bias = _three(given)
    rank = weight.ndim - 2
    begins, ends = _pads(at, rank)
    if begins != ends or "output_shape" in at.values:
        raise Unsupported("padding that is not the same on both sides")
    strides, extra = at.integers("strides") or 1, at.integers("output_padding") or 0
    groups, dilations = at.integer("group", 1), at.integers("dilations") or 1
    return _TRANSPOSED[rank - 1](x, weight, bias, strides, begins, extra, groups, dilations)


def max_pool(at: Attributes, given: Given) -> Tensor:
    """MaxPool, without indices."""
    x, kernel = _pooled(at, given)
    begins, ends = _pads(at, len(kernel))
    if begins != ends:
        x, begins = F.pad(x, _torch_pads(begins, ends), value=-torch.inf), [0] * len(kernel)
    strides, dilations = at.integers("strides") or [1] * len(kernel), at.integers("dilations") or 1
    return _MAX_POOLS[len(kernel) - 1](x, kernel, strides, begins, dilations, bool(at.integer("ceil_mode", 0)))


def average_pool(at: Attributes, given: Given) -> Tensor:
    """AveragePool."""
    x, kernel = _pooled(at, given)
    begins, ends = _pads(at, len(kernel))
    counted = bool(at.integer("count_include_pad", 0))
    if any(n != 1 for n in at.integers("dilations") or [1]):
        raise Unsupported("an average over a dilated window")
    if begins != ends:
        if not counted:
            raise Unsupported("padding that is not the same on both sides")
        x, begins = F.pad(x, _torch_pads(begins, ends)), [0] * len(kernel)
    strides = at.integers("strides") or [1] * len(kernel)
    return _AVERAGE_POOLS[len(kernel) - 1](x, kernel, strides, begins, bool(at.integer("ceil_mode", 0)), counted)


def resize(at: Attributes, given: Given) -> Tensor:
    """Resize of the spatial axes, in the ways that torch has.

    Raises:
        Unsupported: it is another way.
    """
    x, sizes = given[0], given[3] if len(given) > 3 else None
    assert x is not None
    if sizes is None:
        scales = given[2]
        assert scales is not None
        wanted = [int(size * scale) for size, scale in zip(x.shape, scales.tolist(), strict=True)]
    else:
        wanted = [int(size) for size in sizes.tolist()]
    axes = at.integers("axes")
    if axes is not None or wanted[:2] != list(x.shape[:2]):
        raise Unsupported("other axes than the spatial ones")
    mode, corners = _interpolation(at, x.ndim)
    return F.interpolate(x, wanted[2:], mode=mode, align_corners=corners)


def _interpolation(at: Attributes, rank: int) -> tuple[str, bool | None]:
    """torch's mode, and whether the corners of what is read and given lie on each other."""
    mode = at.text("mode", "nearest")
    where = at.text("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        rounding = at.text("nearest_mode", "round_prefer_floor")
        known = {("asymmetric", "floor"): "nearest", ("half_pixel", "round_prefer_floor"): "nearest-exact"}
        if (where, rounding) in known:
            return known[where, rounding], None
    elif mode == "linear" and rank in (3, 4, 5) and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return {3: "linear", 4: "bilinear", 5: "trilinear"}[rank], where == "align_corners"
    elif mode == "cubic" and rank == 4 and at.number("cubic_coeff_a", -0.75) == -0.75 and where != "asymmetric":
        return "bicubic", where == "align_corners"
    raise Unsupported(f"resizing by {mode} at {where}")


def _three(given: Given) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight = given[:2]
    assert x is not None
    assert weight is not None
    return x, weight, given[2] if len(given) > 2 else None


def _pooled(at: Attributes, given: Given) -> tuple[Tensor, list[int]]:
    x, kernel = given[0], at.integers("kernel_shape")
    assert x is not None
    assert kernel is not None
    return x, kernel


def _pads(at: Attributes, rank: int) -> tuple[list[int], list[int]]:
    """Before and behind, of each spatial axis."""
    if at.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unsupported(f"auto_pad = {at.text('auto_pad', '')}")
    pads = at.integers("pads") or [0] * (2 * rank)
    return pads[:rank], pads[rank:]


def _torch_pads(begins: list[int], ends: list[int]) -> list[int]:
    """As torch counts them: the last axis first."""
    return [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
