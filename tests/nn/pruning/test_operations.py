"""The right channels go where operations move them about, by an oracle that shares nothing with the product's."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import TWO, Mix, Net, as_much_as_possible, block, difference


def shuffled(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:  # what ShuffleNet does
    y = a(x)
    n, c, h, w = y.shape
    return b(y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))  # type: ignore[no-any-return]


def windows(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:  # Swin-like, the scale fixed
    n, c, h, w = x.shape
    rows = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
    q, k, v = qkv(rows).chunk(3, -1)
    rows = out(torch.softmax(q @ k.transpose(1, 2) / 5.6, -1) @ v)
    return x + rows.view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def written(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    y = torch.zeros(len(x), 64, 8, 8)
    y[:, :32] = a(x)[:, 16:48]
    y[:, 32:] = x
    return b(y)  # type: ignore[no-any-return]


def hard_coded(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return b(a(x).view(-1, 64, 8, 8))  # type: ignore[no-any-return]


def counted(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:  # nothing moves, but the width is in a number
    y = a(x)
    return b(y / y.shape[1] * 64)  # type: ignore[no-any-return]


ORDER = torch.randperm(64, generator=torch.Generator().manual_seed(1))


# Networks that move channels about: name → how, the layers, and whether anything in the middle can go.
MOVING: dict[str, tuple[Mix, Iterable[nn.Module], bool]] = {
    "control": (lambda x, a, b: b(a(x)), TWO, True),
    "shuffled": (shuffled, TWO, True),
    "channel_shuffle": (lambda x, a, b: b(F.channel_shuffle(a(x), 4)), TWO, False),
    "flip": (lambda x, a, b: b(a(x).flip(1)), TWO, True),
    "roll": (lambda x, a, b: b(a(x).roll(5, 1)), TWO, False),
    "roll in space": (lambda x, a, b: b(a(x).roll((2, 1), (2, 3)).flip(2)), TWO, True),
    "permutation": (lambda x, a, b: b(a(x)[:, ORDER]), TWO, False),
    "index_select": (lambda x, a, b: b(a(x).index_select(1, ORDER)), TWO, False),
    "windows": (windows, (nn.Linear(32, 96), nn.Linear(32, 32)), False),
    "every second": (lambda x, a, b: b(a(x)[:, ::2]), (block(32, 64), block(32, 32)), False),
    "halves swapped": (lambda x, a, b: b(torch.cat(a(x).chunk(2, 1)[::-1], 1)), TWO, True),
    "uneven parts": (lambda x, a, b: b(torch.cat(a(x).split([48, 16], 1)[::-1], 1)), TWO, False),
    "parts, paths": (
        lambda x, a, b, c, d: d(torch.cat([f(y) for f, y in zip((b, c), a(x).chunk(2, 1), strict=True)], 1)),
        (block(32, 64), block(32, 32, 3), block(32, 32), block(64, 32)),
        True,
    ),
    "maximum of halves": (lambda x, a, b: b(torch.maximum(*a(x).chunk(2, 1))), (block(32, 64), block(32, 32)), True),
    "pixel_shuffle": (lambda x, a, b: b(F.pixel_shuffle(a(x), 2)), (block(32, 64), block(16, 32)), False),
    "transposed": (lambda x, a, b: b(a(x).transpose(2, 3).contiguous()), TWO, True),
    "channels last": (
        lambda x, a, b: b(a(x.permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2),
        (nn.Linear(32, 64), nn.Linear(64, 32)),
        True,
    ),
    "space as channels": (lambda x, a, b: b(a(x).flatten(2).transpose(1, 2)[..., None]), TWO, False),
    "written into": (written, TWO, False),
    "hard-coded": (hard_coded, TWO, False),
    "counted": (counted, TWO, False),
    "flattened": (lambda x, a, b: b(a(x).flatten(1)).relu(), (block(32, 16), nn.Linear(1024, 32)), True),
    "flattened, channels last": (
        lambda x, a, b: b(a(x).permute(0, 2, 3, 1).flatten(1)).relu(),
        (block(32, 16), nn.Linear(1024, 32)),
        True,
    ),
    "concatenated": (
        lambda x, a, b, c: c(torch.cat([a(x), x, b(x)], 1)),
        (block(32, 48), block(32, 16, 3), block(96, 32)),
        True,
    ),
    "sum of a concatenation": (
        lambda x, a, b, c, d: d(torch.cat([a(x), b(x)], 1) + c(x)),
        (block(32, 32), block(32, 32), block(32, 64), block(64, 32)),
        True,
    ),
    "padded": (lambda x, a, b, c: c(F.pad(a(x), (0, 0, 0, 0, 8, 8)) + b(x)), (block(32, 48), *TWO), True),
    "padded in space": (lambda x, a, b: b(F.pad(a(x), (1, 1, 2, 0))), TWO, True),
    "paths, weighed": (
        lambda x, a, b, c, d: d(
            (
                torch.stack([a(x), b(x)], 1)
                * c(a(x).mean((2, 3), keepdim=True)).view(len(x), 2, -1, 1, 1).softmax(1)
            ).sum(1)
        ),
        (block(32, 64), block(32, 64, 3), nn.Conv2d(64, 128, 1), block(64, 32)),
        True,
    ),
    "paths, one taken": (
        lambda x, a, b, c: c(torch.stack([a(x), b(x)], 1)[:, 1]),
        (block(32, 64), block(32, 64, 3), block(64, 32)),
        True,
    ),
    "one channel taken": (lambda x, a, b: b(a(x) * a(x)[:, :1]), TWO, False),
    "image beside": (
        lambda x, a, b: b(torch.cat([a(x), torch.ones(len(x), 8, 8, 8)], 1)),
        (block(32, 56), block(64, 32)),
        True,
    ),
    "values written over": (lambda x, a, b: b(a(x).masked_fill(x.mean(1, keepdim=True) > 1, 0)), TWO, True),
    "grouped": (lambda x, a, b, c: c(b(a(x))), (block(32, 64), block(64, 128, 3, 4), block(128, 32)), True),
    "two groups": (lambda x, a, b, c: c(b(a(x))), (block(32, 64), block(64, 128, 3, 2), block(128, 32)), True),
    "depthwise": (lambda x, a, b, c: c(b(a(x))), (block(32, 64), block(64, 128, 3, 64), block(128, 32)), True),
    "stacked": (
        lambda x, a, b, c: c(torch.stack([a(x), b(x)], 1).sum(1)),
        (block(32, 64), block(32, 64, 3), block(64, 32)),
        True,
    ),
    "stacked behind the channels": (
        lambda x, a, b, c: c(torch.stack([a(x), b(x)], 2).sum(2)),
        (block(32, 64), block(32, 64, 3), block(64, 32)),
        True,
    ),
    "stacked at the end": (
        lambda x, a, b, c: c(torch.stack([a(x), b(x)], -1).sum(-1)),
        (block(32, 64), block(32, 64, 3), block(64, 32)),
        True,
    ),
    "an axis more": (lambda x, a, b: b(a(x).unsqueeze(2).mean(2)), TWO, True),
    "collected in an empty tensor": (lambda x, a, b: b(torch.cat([torch.zeros(0), a(x)], 1)), TWO, False),
    "twice": (lambda x, a, b, c: c(b(b(a(x)))), (block(32, 64), block(64, 64), block(64, 32)), True),
    "gate": (
        lambda x, a, b, c, d: d(a(x) * c(b(a(x).mean((2, 3), keepdim=True)))),
        (block(32, 64), block(64, 16), nn.Sequential(block(16, 64), nn.Hardsigmoid()), block(64, 32)),
        True,
    ),
    "normalised over channels": (lambda x, a, b: b(F.normalize(a(x), dim=1)), TWO, False),
    "softmax over channels": (lambda x, a, b: b(a(x).softmax(1)), TWO, False),
    "softmax in space": (lambda x, a, b: b(a(x) * a(x).flatten(2).softmax(2).view(len(x), -1, 8, 8)), TWO, True),
    "mean over channels": (lambda x, a, b: b(a(x) - a(x).mean(1, keepdim=True)), TWO, False),
    "group norm": (lambda x, a, b: b(F.group_norm(a(x), 8)), TWO, False),
    "a weight used both ways": (
        lambda x, a, b: b(F.conv_transpose2d(a(x), a.weight)),
        (nn.Conv2d(32, 64, 3), block(32, 32)),
        False,
    ),
    "a weighed product": (
        lambda x, a, b: b(torch.addmm(a.bias, x.mean((2, 3)), a.weight.t(), alpha=0.5)).relu(),
        (nn.Linear(32, 64), nn.Linear(64, 32)),
        False,
    ),
    "expanded": (lambda x, a, b: b(a(x).mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)), TWO, True),
    "turned and turned back": (
        lambda x, a, b: b(a(x.mean((2, 3))).t().t()).relu(),
        (nn.Linear(32, 64), nn.Linear(64, 32)),
        True,
    ),
    "mantissas": (lambda x, a, b: b(torch.frexp(a(x))[0]), TWO, False),
    "resized": (lambda x, a, b: b(F.max_pool2d(F.interpolate(a(x), scale_factor=2), 2)), TWO, True),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVING)
def test_the_right_channels_go_or_none(name: str) -> None:
    mix, parts, goes = MOVING[name]
    model = Net(mix, *copy.deepcopy(list(parts)))
    pruned, report = as_much_as_possible(model)
    assert difference(model, pruned) < 1e-5
    first = next(
        n for n, m in model.named_modules() if n.startswith("parts.0") and isinstance(m, nn.Conv2d | nn.Linear)
    )
    width = len(model.get_submodule(first).bias)  # type: ignore[arg-type]
    now = report.channels.get(first)
    assert (now is not None and now.outputs < width) == goes, report.left
