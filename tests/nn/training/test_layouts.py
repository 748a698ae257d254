"""Which convolutions leave NHWC on a CPU, and that they do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.nn.training.layouts import is_unsafe, to_channels_last

CRASHES = """
import torch
from torch import nn
from dlx_deploy.nn.training.layouts import to_channels_last

torch.manual_seed(0)
torch.set_num_threads(2)
for channels in (1, 12):
    own, plain = nn.Conv2d(channels, 24, 1, 2, bias=False), nn.Conv2d(channels, 24, 1, 2, bias=False)
    plain.load_state_dict(own.state_dict())
    to_channels_last(own, torch.device("cpu"))
    for batch in (33, 9, 3):
        images = torch.randn(batch, channels, 28, 28)
        own(images.to(memory_format=torch.channels_last)).square().mean().backward()
        plain(images).square().mean().backward()
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)
"""


def test_a_narrow_strided_1x1_convolution_learns_with_two_threads_in_channels_last() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("convolution", "unsafe"),
    [
        (nn.Conv2d(12, 24, 1, 2), True),
        (nn.Conv2d(15, 24, 1, (1, 2), padding="valid"), True),
        (nn.Conv2d(16, 24, 1, 2), False),
        (nn.Conv2d(12, 24, 1, 1), False),
        (nn.Conv2d(12, 24, 3, 2, 1), False),
        (nn.Conv2d(12, 24, 1, 2, groups=2), False),
    ],
)
def test_unsafe_is_narrow_strided_1x1_and_ungrouped(convolution: nn.Module, unsafe: bool) -> None:
    assert is_unsafe(convolution) == unsafe


def test_only_an_unsafe_convolution_on_a_cpu_leaves_channels_last() -> None:
    seen: list[bool] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    images = torch.randn(2, 12, 8, 8).to(memory_format=torch.channels_last)
    for model in (nn.Conv2d(12, 4, 1, 2), nn.Conv2d(12, 4, 3)):
        handles = to_channels_last(model, torch.device("cpu"))
        model.register_forward_pre_hook(look)
        model(images)
        for handle in handles:
            handle.remove()
        model(images)
    assert seen == [False, True, True, True]
    assert to_channels_last(nn.Conv2d(12, 4, 1, 2), torch.device("cuda")) == []


class _Seen(nn.Conv2d):
    contiguous = False

    def forward(self, input: Tensor) -> Tensor:
        self.contiguous = input.is_contiguous()
        return super().forward(input)


class _ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = _Seen(3, 8, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(input=x)
        return out


def test_a_convolution_that_is_called_by_keyword_works_in_nchw_too() -> None:
    model = _ByKeyword()
    to_channels_last(model, torch.device("cpu"))
    model(torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last))
    assert model.narrow.contiguous
