"""Which layers of a network can be followed, and what is said of those that cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.order import Goal, Grounds, Order

from .networks import SHAPE, TWO, Net, as_much_as_possible, block, silenced


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
    def mixing(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        y = a(x).unflatten(1, (2, 32)).softmax(2)
        return b(F.max_pool2d((y + y.flip(1)).flatten(1, 2), 2))  # type: ignore[no-any-return]

    _, report = as_much_as_possible(Net(mixing, *copy.deepcopy(TWO)))
    assert report.left["parts.0.0"] == "_softmax in the network itself"


@pytest.mark.parametrize("parts", [4, -1])
def test_parts_whose_places_are_mixed_go_whole_where_the_view_lets_them(parts: int) -> None:
    def by_parts(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        return b(a(x).unflatten(1, (parts, 16)).softmax(2).flatten(1, 2))  # type: ignore[no-any-return]

    model = Net(by_parts, *copy.deepcopy(TWO))
    pruned, report = as_much_as_possible(model)
    if parts == 4:
        assert report.left["parts.0.0"].startswith("it does not compute (RuntimeError: unflatten: Provided sizes [4, ")
    else:
        assert report.channels["parts.0.0"].outputs == 16
        expected, images = silenced(model, pruned), torch.randn(SHAPE)
        gone = ~torch.isin(model.parts[0][0].bias, pruned.parts[0][0].bias)  # type: ignore[index,arg-type,union-attr]
        with torch.no_grad():
            expected.parts[1][0].weight[:, gone] = 0  # type: ignore[index,union-attr]
        assert torch.allclose(pruned(images), expected(images), atol=1e-5)


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


def test_how_far_a_network_was_followed_is_told() -> None:
    told: list[tuple[float, float]] = []
    twice = Net(lambda x, a, b: b(a(a(x))), block(32, 32), block(32, 32))
    grounds = Grounds(progress=lambda done, total, text="": told.append((done, total)))
    prune_channels(twice, SHAPE, Order(Goal(asked=0.1), round_to=1, keep_trunk=False, grounds=grounds))
    inmost = [module for module in twice.modules() if not any(module.children())]
    assert told == [(number, len(inmost)) for number in range(1, len(inmost) + 1)]
