"""The memory layout in which a network learns: NHWC, but for convolutions whose gradients oneDNN gets wrong in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["is_unsafe", "is_unsafe_shape", "to_channels_last"]

_BLOCK = 16  # float32 channels in an AVX-512 register, the block of oneDNN's kernels; 8 with AVX2


def is_unsafe(module: nn.Module) -> bool:
    """Whether the weight gradient of ``module`` on a CPU can write beyond its memory in NHWC.

    oneDNN (github.com/uxlfoundation/oneDNN, issue 6035; seen in v3.12.0 of torch 2.14.1): a strided 1x1 convolution
    without padding or groups and with fewer input channels than a block, where threads share the work.
    """
    if not isinstance(module, nn.Conv2d):
        return False
    padding = (0, 0) if isinstance(module.padding, str) else module.padding  # by name there is none around 1x1
    return is_unsafe_shape(module.weight.shape, module.stride, padding, module.groups)


def is_unsafe_shape(weight: Sequence[int], strides: Sequence[int], padding: Sequence[int], groups: int) -> bool:
    """The same of a convolution with a kernel of the shape ``weight``, [outputs, inputs, height, width]."""
    return groups == 1 and weight[1] < _BLOCK and tuple(weight[2:]) == (1, 1) and max(strides) > 1 and not any(padding)


def to_channels_last(model: nn.Module, device: torch.device) -> list[RemovableHandle]:
    """Put ``model`` into NHWC for training on ``device``; on a CPU its unsafe convolutions work in NCHW.

    Gives back what to remove when training ends.
    """
    model.to(memory_format=torch.channels_last)
    handles = []
    for module in model.modules() if device.type == "cpu" else ():
        if isinstance(module, nn.Conv2d) and is_unsafe(module):
            # ``contiguous`` would leave the strides of a 1x1 kernel, off which torch reads the layout.
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
            handles.append(module.register_forward_pre_hook(_in_nchw, with_kwargs=True))
    return handles


def _in_nchw(
    _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    plain = torch.contiguous_format
    return tuple(x.clone(memory_format=plain) for x in inputs), {
        n: x.clone(memory_format=plain) for n, x in named.items()
    }
