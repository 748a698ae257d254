"""Fake quantizers: what they give, and the gradients of Esser et al. 2020."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dlx_deploy.nn.qat.quantizers import LEAST, MOST, FakeQuantizer


def plain_lsq(x: Tensor, scale: Tensor, low: int, high: int, shrink: float) -> Tensor:
    """The paper's own recipe (appendix): rounding passed over by ``detach``, the scale's gradient times ``shrink``."""
    scale = (scale - scale * shrink).detach() + scale * shrink
    steps = (x / scale).clamp(low, high)
    return ((steps.round() - steps).detach() + steps) * scale


@pytest.mark.parametrize(("ends", "axis"), [((-128, 127), None), ((-120, 135), None), ((-7, 7), 0), ((-127, 127), 1)])
def test_values_and_gradients_are_those_of_the_paper(ends: tuple[int, int], axis: int | None) -> None:
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)) * 2
    start = torch.tensor(0.02) if axis is None else torch.linspace(0.01, 0.3, x.shape[axis])
    quantizer = FakeQuantizer(start, ends, axis)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    scale = start.clone().requires_grad_()
    shape = [-1 if i == axis else 1 for i in range(3)]
    count = 4 * 3 if axis is None else x.numel() // x.shape[axis]  # of an activation without the batch
    shrink = 1 / math.sqrt(count * max(ends[1], -ends[0]))
    expected = plain_lsq(theirs, scale if axis is None else scale.view(shape), *ends, shrink)
    found = quantizer(ours)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert quantizer.ratio.grad is not None
    # A step of gradient descent moves ``start * ratio`` as far as it would move the scale itself.
    assert scale.grad is not None
    torch.testing.assert_close(start * quantizer.ratio.grad, scale.grad, rtol=1e-4, atol=1e-7)


def test_what_is_given_lies_on_the_integers_of_the_scale() -> None:
    quantizer = FakeQuantizer(torch.tensor(0.25), (-2, 3))
    x = torch.tensor([-9.0, -0.4, 0.1, 0.125, 0.375, 9.0])
    assert quantizer.integers(x).tolist() == [-2, -2, 0, 0, 2, 3]  # halves go to the even one
    assert torch.equal(quantizer(x), quantizer.integers(x) * 0.25)
    with torch.no_grad():
        assert torch.equal(quantizer(x), quantizer.integers(x) * 0.25)


def test_a_scale_stays_near_what_it_was() -> None:
    quantizer = FakeQuantizer(torch.tensor([1.0, 1.0, 1.0]), (-127, 127), 0)
    with torch.no_grad():
        quantizer.ratio.copy_(torch.tensor([-3.0, 1.5, 1e9]))
    quantizer.project()
    assert quantizer.scale().tolist() == [LEAST, 1.5, MOST]


def test_scales_of_graphs_in_half_precision_are_numbers_that_float16_holds() -> None:
    start = torch.tensor([0.1, 1e-9, 3e4])
    quantizer = FakeQuantizer(start, (-127, 127), 0, half=True)
    held = quantizer.scale()
    assert torch.equal(held[:2], held[:2].half().float())
    assert held[2] == 3e4  # beyond float16 a scale stays in float32, and so does its tensor
    quantizer(torch.randn(3, 5)).sum().backward()
    assert quantizer.ratio.grad is not None  # rounding a scale is passed over as well
    assert quantizer.ratio.grad.count_nonzero() > 0
