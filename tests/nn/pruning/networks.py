"""Networks to prune, and an oracle for what went that shares nothing with the product's.

Every layer here has a bias of distinct numbers, so what a pruned network kept can be read off its biases. In a copy of
the network all that was removed is silenced by hand: rows of weights, biases and batch normalisation are zero. Where
only ReLU-like functions lie between, nothing behind them sees anything but zeros, so both must answer the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.channels import PruneReport, prune_channels
from dlx_deploy.nn.pruning.order import Goal, Order

SHAPE = (2, 3, 8, 8)
Mix = Callable[..., Tensor]


def block(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """stem → mix(…, parts) → mean → head."""

    def __init__(self, mix: Mix, *parts: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.stem, self.parts, self.head, self.mix = block(3, 32), nn.ModuleList(parts), nn.Linear(width, 10), mix
        for i, module in enumerate(self.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                draw = torch.Generator().manual_seed(i)
                with torch.no_grad():
                    module.bias.uniform_(-0.5, 0.5, generator=draw)
                    scale = torch.empty(len(module.weight)).uniform_(0.2, 2, generator=draw)
                    module.weight.mul_(scale.view(-1, *[1] * (module.weight.ndim - 1)))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.stem(x), *self.parts)
        out: Tensor = self.head(y.mean((2, 3)) if y.ndim == 4 else y)
        return out


def silenced(model: nn.Module, pruned: nn.Module) -> nn.Module:
    silent, after = copy.deepcopy(model), dict(pruned.named_modules())
    for name, module in silent.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            gone = ~torch.isin(module.bias, after[name].bias)  # type: ignore[arg-type]
            assert int(gone.sum()) == len(module.bias) - len(after[name].bias)  # type: ignore[arg-type]
            with torch.no_grad():
                weight = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
                weight[gone] = 0
                module.bias[gone] = 0
    return silent


def difference(model: nn.Module, pruned: nn.Module) -> float:
    x = torch.randn(4, *SHAPE[1:], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return float((silenced(model, pruned)(x) - pruned(x)).abs().max() / model(x).abs().max())


def as_much_as_possible(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[nn.Module, PruneReport]:
    def asked(share: float) -> Order:
        return Order(Goal(asked=share), round_to=1, keep_trunk=False)

    try:
        return prune_channels(model, shape, asked(0.95))
    except StageFailed as e:
        share = float(str(e).partition("at most ")[2].partition(" of")[0])
        return prune_channels(model, shape, asked(share))


TWO = (block(32, 64), block(64, 32, 3))
