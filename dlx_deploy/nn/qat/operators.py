"""ONNX operators in torch, by name: what computes a graph's numbers and lets gradients through."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.qat import shapes, windows
from dlx_deploy.nn.qat.attributes import Attributes, Given

__all__ = ["OPERATORS", "Operator"]

Operator = Callable[[Attributes, Given], Tensor | tuple[Tensor, ...]]
"""(a node's attributes, what it reads) → what it gives.

Raises:
    Unsupported: its attributes ask for what torch does not have.
"""


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda at, given: function(_tensor(given, 0))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda at, given: function(_tensor(given, 0), _tensor(given, 1))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def computed(at: Attributes, given: Given) -> Tensor:
        result = _tensor(given, 0)
        for position in range(1, len(given)):
            result = function(result, _tensor(given, position))
        return result

    return computed


def _divided(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _clip(at: Attributes, given: Given) -> Tensor:
    low, high = (given[i] if len(given) > i else None for i in (1, 2))
    return torch.clamp(_tensor(given, 0), low, high) if low is not None or high is not None else _tensor(given, 0)


def _hard_sigmoid(at: Attributes, given: Given) -> Tensor:
    return (at.number("alpha", 0.2) * _tensor(given, 0) + at.number("beta", 0.5)).clamp(0, 1)


def _hard_swish(at: Attributes, given: Given) -> Tensor:
    """``levels``: in so many steps the gate is rounded, where it is one between integers."""
    x, levels = _tensor(given, 0), at.integer("levels", 0)
    gate = (x * (1 / 6) + 0.5).clamp(0, 1)
    if levels:
        gate = gate + ((gate * levels).round() / levels - gate).detach()
    return x * gate


def _gelu(at: Attributes, given: Given) -> Tensor:
    return F.gelu(_tensor(given, 0), approximate=at.text("approximate", "none"))


def _gemm(at: Attributes, given: Given) -> Tensor:
    a, b = _tensor(given, 0), _tensor(given, 1)
    c = given[2] if len(given) > 2 else None
    a = a.T if at.integer("transA", 0) else a
    b = b if at.integer("transB", 0) else b.T
    alpha, beta = at.number("alpha", 1.0), at.number("beta", 1.0)
    if c is not None and c.ndim == 1 and len(c) == len(b) and alpha == beta == 1.0:
        return F.linear(a, b, c)
    product = alpha * F.linear(a, b) if alpha != 1.0 else F.linear(a, b)
    return product if c is None else product + beta * c


def _reduce(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    def reduced(at: Attributes, given: Given) -> Tensor:
        x, asked = _tensor(given, 0), given[1] if len(given) > 1 else None
        axes = asked.tolist() if asked is not None else at.integers("axes") or []
        if not axes and at.integer("noop_with_empty_axes", 0):
            return x
        named = tuple(int(axis) % x.ndim for axis in axes) or tuple(range(x.ndim))
        return function(x, named, bool(at.integer("keepdims", 1)))

    return reduced


def _global_pool(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    return lambda at, given: function(_tensor(given, 0), tuple(range(2, _tensor(given, 0).ndim)), True)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.mean(axes, keep)


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keep)


def _largest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amax(axes, keep)


def _smallest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amin(axes, keep)


def _norm(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return norm


def _softmax(at: Attributes, given: Given) -> Tensor:
    return F.softmax(_tensor(given, 0), dim=at.integer("axis", -1))


def _log_softmax(at: Attributes, given: Given) -> Tensor:
    return F.log_softmax(_tensor(given, 0), dim=at.integer("axis", -1))


def _layer_norm(at: Attributes, given: Given) -> Tensor:
    x, bias = _tensor(given, 0), given[2] if len(given) > 2 else None
    sizes = list(x.shape[at.integer("axis", -1) % x.ndim :])
    return F.layer_norm(x, sizes, given[1], bias, at.number("epsilon", 1e-5))


def _batch_norm(at: Attributes, given: Given) -> Tensor:
    x, weight, bias, mean, variance = given[:5]
    assert x is not None
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=at.number("epsilon", 1e-5))


def _leaky(at: Attributes, given: Given) -> Tensor:
    return F.leaky_relu(_tensor(given, 0), at.number("alpha", 0.01))


def _elu(at: Attributes, given: Given) -> Tensor:
    return F.elu(_tensor(given, 0), at.number("alpha", 1.0))


def _where(at: Attributes, given: Given) -> Tensor:
    return torch.where(_tensor(given, 0), _tensor(given, 1), _tensor(given, 2))


def _range(at: Attributes, given: Given) -> Tensor:
    first, last, step = (_tensor(given, i) for i in range(3))
    return torch.arange(first.item(), last.item(), step.item(), dtype=first.dtype, device=first.device)


def _tensor(given: Given, position: int) -> Tensor:
    x = given[position]
    assert x is not None
    return x


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Ceil": _unary(torch.ceil),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Identity": _unary(lambda x: x),
    "Log": _unary(torch.log),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(F.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Softplus": _unary(F.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Tanh": _unary(torch.tanh),
    "Mish": _unary(F.mish),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "And": _binary(torch.logical_and),
    "Or": _binary(torch.logical_or),
    "Equal": _binary(torch.eq),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(_divided),
    "Pow": _binary(torch.pow),
    "MatMul": _binary(torch.matmul),
    "PRelu": _binary(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Sum": _variadic(torch.add),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "ReduceMean": _reduce(_mean),
    "ReduceSum": _reduce(_sum),
    "ReduceMax": _reduce(_largest),
    "ReduceMin": _reduce(_smallest),
    "ReduceL2": _reduce(_norm),
    "GlobalAveragePool": _global_pool(_mean),
    "GlobalMaxPool": _global_pool(_largest),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Where": _where,
    "Range": _range,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "Resize": windows.resize,
    "Cast": shapes.cast,
    "Concat": shapes.concat,
    "ConstantOfShape": shapes.constant_of_shape,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Pad": shapes.pad,
    "Reshape": shapes.reshape,
    "Shape": shapes.shape,
    "Slice": shapes.slice_,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}
"""Operator type → what computes it. Random numbers, control flow and integers' own arithmetic are not among them."""
