"""Whether the right channels go, by an oracle that shares nothing with the product's.

Every layer here has a bias of distinct numbers, so what a pruned network kept can be read off its biases. In a copy of
the network all that was removed is silenced by hand: rows of weights, biases and batch normalisation are zero. Where
only ReLU-like functions lie between, nothing behind them sees anything but zeros, so both must answer the same.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dlx_deploy.nn.pruning.channels as pruning
from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.channels import PruneReport, prune_channels
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.trace import Arguments, Operation, Rule, Trace

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
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            gone = ~torch.isin(module.bias, after[name].bias)  # type: ignore[arg-type]
            assert int(gone.sum()) == len(module.bias) - len(after[name].bias)  # type: ignore[arg-type]
            with torch.no_grad():
                module.weight[gone] = 0
                module.bias[gone] = 0
    return silent


def difference(model: nn.Module, pruned: nn.Module) -> float:
    x = torch.randn(4, *SHAPE[1:], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return float((silenced(model, pruned)(x) - pruned(x)).abs().max() / model(x).abs().max())


def as_much_as_possible(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[nn.Module, PruneReport]:
    options: dict[str, Any] = {"round_to": 1, "keep_trunk": False}
    try:
        return prune_channels(model, shape, 0.95, **options)
    except StageFailed as e:
        share = float(str(e).partition("at most ")[2].partition(" of")[0])
        return prune_channels(model, shape, share, **options)


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
TWO = (block(32, 64), block(64, 32, 3))

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


def wrongly_known(func: Operation) -> Rule | None:
    """As if turning channels round in a circle kept them in place."""
    known = rule_for(func)
    if func.overloadpacket.__name__ != "roll":
        return known

    def same(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
        trace.give(results[0], trace.of(given["self"]))
        return True

    return same


def test_the_oracle_drops_what_a_wrong_rule_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    mix, parts, _ = MOVING["roll"]
    model = Net(mix, *copy.deepcopy(list(parts)))
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    pruned, report = as_much_as_possible(model)
    assert difference(model, pruned) < 1e-5
    assert re.fullmatch(
        r"its answers are \d\.\de[-+]\d\d of the largest off from those of the network without these channels",
        report.left["parts.0.0"],
    )
    assert report.channels["stem.0"].outputs < 32
    monkeypatch.setattr(Oracle, "objection", lambda *_: "")
    pruned, _ = as_much_as_possible(model)
    assert difference(model, pruned) > 0.01  # so the check by hand sees it as well


def a_head_of_zeros(model: Net) -> None:
    nn.init.zeros_(model.head.weight)


def a_head_of_zeros_behind_integers(model: Net) -> None:
    model.register_parameter("table", nn.Parameter(torch.arange(4), requires_grad=False))
    nn.init.zeros_(model.head.weight)


def statistics_that_let_nothing_through(model: Net) -> None:
    model.parts[1][1].running_var.fill_(1e20)  # type: ignore[index,operator,union-attr]


@pytest.mark.parametrize(
    "hide", [a_head_of_zeros, a_head_of_zeros_behind_integers, statistics_that_let_nothing_through]
)
def test_the_oracle_is_not_blinded(hide: Callable[[Net], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mix, parts, _ = MOVING["roll"]
    model = Net(mix, *copy.deepcopy(list(parts)))
    hide(model)
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    _, report = as_much_as_possible(model)
    assert "parts.0.0" in report.left


def test_a_layer_that_must_stay_is_named_however_little_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the wide layer is enough: no plan for it takes anything from the narrow one, which must stay."""
    model = Net(lambda x, a, b, c: c(b(a(x).roll(5, 1))), block(32, 16), block(16, 128), block(128, 32))
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    _, report = prune_channels(model, SHAPE, 0.05)
    assert {name for name, now in report.channels.items() if now.outputs < 128} == {
        "parts.1.0",
        "parts.1.1",
        "parts.2.0",
    }
    assert "of the largest off" in report.left["parts.0.0"]


@pytest.mark.parametrize(
    ("wrong", "blamed"), [("a", "a"), ("d", "d"), ("ad", "cd"), ("ab", "b"), ("cd", "d"), ("", "abcd"), ("x", "")]
)
def test_groups_to_blame_are_those_without_which_nothing_speaks_against_the_rest(
    wrong: str, blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ``wrong`` together is objected to; where neither half of a plan is wrong alone the second is blamed."""
    monkeypatch.setattr(Oracle, "objection", lambda _, plan: "no" if set(wrong) <= set(plan) else "")
    plan = {name: np.array([0]) for name in "abcd"}
    assert Oracle.__new__(Oracle).offenders(plan) == dict.fromkeys(blamed, "no")


@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 1, 1)], ids=str)
def test_a_part_that_only_training_runs_keeps_its_inputs(shape: tuple[int, ...]) -> None:
    """Even if the network does not train on a batch of ``shape``: of one value there are no statistics."""

    class Helped(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))
            self.helper = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = self.parts[0](self.stem(x))
            out: Tensor = self.head(self.parts[1](y).mean((2, 3)))
            return out + self.helper(y.mean((2, 3))) if self.training else out

    pruned, report = as_much_as_possible(Helped(), shape)
    assert "it does not compute in training (RuntimeError: mat1 and mat2 shapes" in report.left["parts.0.0"]
    assert pruned.train()(torch.zeros(SHAPE)).shape == (2, 10)


def test_any_answer_is_too_far_off_where_only_zeros_are_right() -> None:
    class Missed(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))

        def forward(self, x: Tensor) -> Tensor:
            y = self.parts[0](self.stem(x))
            out: Tensor = self.head(self.parts[1](y).mean((2, 3)))
            return out * (64 - y.shape[1])

    _, report = as_much_as_possible(Missed())
    assert report.left["parts.0.0"].startswith("its answers are inf of the largest off")


def test_answers_that_are_not_finite_cannot_be_compared() -> None:
    model = Net(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))
    nn.init.constant_(model.head.bias, float("inf"))
    with pytest.raises(
        StageFailed, match=r"answers to a batch of random numbers are not finite.*prune\.enabled = false"
    ):
        prune_channels(model, SHAPE, 0.2)


class Two(nn.Module):
    """Several answers from one trunk."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.trunk, self.one, self.other, self.give = nn.Sequential(*TWO), nn.Linear(32, 4), nn.Linear(32, 3), give
        self.stem = block(3, 32)

    def forward(self, x: Tensor) -> Any:
        y = self.trunk(self.stem(x)).mean((2, 3))
        return self.give(self.one(y), self.other(y))


@pytest.mark.parametrize("give", [lambda a, b: (a, b), lambda a, b: {"out": a, "more": [b, None, 3]}])
def test_a_network_with_several_outputs_is_pruned(give: Callable[[Tensor, Tensor], Any]) -> None:
    model = Two(give).eval()
    pruned, report = prune_channels(model, SHAPE, 0.3)
    assert report.reduction >= 0.28
    assert {"one", "other"} <= set(report.left)
    out = pruned(torch.zeros(SHAPE))
    first, second = (out["out"], out["more"][0]) if isinstance(out, dict) else out
    assert (first.shape, second.shape) == ((2, 4), (2, 3))


def test_an_output_that_holds_no_tensor_is_named() -> None:
    with pytest.raises(StageFailed, match=r"the network gives str; what can be compared before and after pruning"):
        prune_channels(Two(lambda a, b: (a, "cat")).eval(), SHAPE, 0.3)


def test_a_convolution_whose_weight_is_computed_is_left_alone() -> None:
    wrapped = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 64, 3, padding=1))
    model = Net(lambda x, a, b, c: c(b(a(x))), wrapped, *copy.deepcopy([block(64, 64), block(64, 32)]))
    pruned, report = as_much_as_possible(model)
    assert {key for key, now in report.channels.items() if now.outputs < 64} >= {"parts.1.0", "parts.2.0"}
    assert pruned.parts[0].weight.shape == (64, 32, 3, 3)  # type: ignore[index,union-attr]
    assert pruned(torch.zeros(SHAPE)).shape == (2, 10)


def test_the_module_that_mixes_channels_is_named() -> None:
    model = Net(lambda x, a, n, b: b(n(a(x))), block(32, 64), nn.GroupNorm(8, 64), block(64, 32))
    _, report = as_much_as_possible(model)
    assert report.left["parts.0.0"].endswith(" in 'parts.1'")


def test_the_operation_that_mixes_channels_is_named_not_one_behind_it() -> None:
    def by_parts(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        y = a(x).unflatten(1, (4, 16)).softmax(2).flatten(1, 2)
        return b(F.max_pool2d(y, 2))  # type: ignore[no-any-return]

    _, report = as_much_as_possible(Net(by_parts, *copy.deepcopy(TWO)))
    assert report.left["parts.0.0"] == "_softmax in the network itself"


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "std": torch.std,
    "flip": lambda weight: weight.flip(0).std(),
    "roll": lambda weight: weight.roll(1, 0).std(),
    "unsqueeze": lambda weight: weight.unsqueeze(0).std(),
    "max_pool2d_with_indices": lambda weight: F.max_pool2d(weight, 1).std(),
}


@pytest.mark.parametrize(
    ("layer", "name"),
    [(layer, name) for layer in (0, 1) for name in READ if layer == 0 or not name.startswith("max_pool")],
)
def test_a_layer_whose_weights_something_else_reads_stays(layer: int, name: str) -> None:
    def scaled(x: Tensor, a: Any, b: nn.Module) -> Tensor:
        return b(a(x) * READ[name](a[layer].weight))  # type: ignore[no-any-return]

    pruned, report = as_much_as_possible(Net(scaled, *copy.deepcopy(TWO)))
    assert report.left["parts.0.0"] == f"{name} in the network itself"
    assert pruned.parts[0][0].weight.shape[0] == 64  # type: ignore[index,union-attr]


class OwnNorm(nn.Module):
    """Computes and is named as a batch normalisation, and is none of torch's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)  # type: ignore[arg-type]


def test_a_module_that_only_computes_like_a_batch_norm_keeps_its_size() -> None:
    model = Net(lambda x, a, n, b: b(n(a(x))), block(32, 64), OwnNorm(64), block(64, 32))
    pruned, report = as_much_as_possible(model)
    assert "parts.0.0" in report.left
    assert pruned.parts[1].weight.shape == (64,)  # type: ignore[index,union-attr]


def test_parameters_that_two_layers_share_stay() -> None:
    a, b = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
    b.weight = a.weight
    model = Net(lambda x, a, b, c: c(b(a(x))), a, b, block(32, 32))
    pruned, report = as_much_as_possible(model)
    assert pruned.parts[0].weight is pruned.parts[1].weight  # type: ignore[index,union-attr]
    assert set(report.channels) == {"parts.2.0", "parts.2.1", "head"}
