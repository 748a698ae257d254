"""Weights that stay are fitted to what those that went gave."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.heads import prune_heads
from dlx_deploy.nn.pruning.order import Goal, Grounds, Order
from dlx_deploy.nn.pruning.reconstruction import Reader, reconstruct, refit
from dlx_deploy.nn.training.batches import Batch

NONE = torch.zeros(0)


def batches(*shape: int, count: int = 8) -> list[Batch]:
    """Channels that hang together, as real ones do: those of a few hidden ones, mixed."""
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(shape[1], max(shape[1] // 2, 1), generator=generator)

    def drawn() -> Tensor:
        hidden = torch.randn(shape[0], mixing.shape[1], *shape[2:], generator=generator)
        return torch.einsum("ch,nh...->nc...", mixing, hidden) + 0.1 * torch.randn(*shape, generator=generator)

    return [Batch(drawn(), NONE, NONE) for _ in range(count)]


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(12, 5, 1)])
def test_a_fit_is_that_of_least_squares(layer: nn.Module) -> None:
    """Beside numpy's, on the same samples, up to the ridge."""
    image = isinstance(layer, nn.Conv2d)
    given = batches(40, 12, *((3, 3) if image else ()))
    model = nn.Sequential(layer)
    read = torch.arange(12) % 3 > 0
    pruned = nn.Sequential(nn.Conv2d(8, 5, 1) if image else nn.Linear(8, 5))
    share = reconstruct(model, pruned, {"0": Reader(read, torch.ones(5, dtype=torch.bool))}, given)
    fitting = [b.inputs.transpose(0, 1).flatten(1) for i, b in enumerate(given) if i % 4 < 3]
    x, weight = torch.cat(fitting, 1).double(), layer.weight.detach().flatten(1).double()  # type: ignore[operator]
    best = torch.linalg.lstsq(x[read].T, (weight @ x).T).solution.T
    fitted = pruned[0].weight.detach().flatten(1).double()  # type: ignore[operator]
    error, least = ((w @ x[read] - weight @ x).square().sum() for w in (fitted, best))
    cut = (weight[:, ~read] @ x[~read]).square().sum()
    assert least <= error <= 1.01 * least
    assert share["0"] == pytest.approx(float(error / cut), rel=0.5)
    assert share["0"] < 0.5


def test_single_weights_are_zero_and_the_rest_makes_up_for_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).eval()
    given, dense = batches(16, 8, 8, 8, count=32), copy.deepcopy(model)
    kept = {"0.weight": torch.rand(6, 8, 3, 3) > 0.4, "3.weight": torch.rand(4, 96) > 0.4}
    cut = copy.deepcopy(model)
    for name, mask in kept.items():
        cut.get_parameter(name).data *= mask
    assert refit(model, kept, given)["0"] < 0.6
    assert not model.get_parameter("0.weight")[~kept["0.weight"]].any()
    unseen = given[3].inputs
    assert (model[0](unseen) - dense[0](unseen)).norm() < 0.8 * (cut[0](unseen) - dense[0](unseen)).norm()


def test_what_is_no_better_on_other_samples_is_not_taken() -> None:
    """Fewer samples than inputs fit whatever they were: the fourth batch shows it."""
    torch.manual_seed(0)
    model, generator = nn.Sequential(nn.Linear(64, 8)), torch.Generator().manual_seed(1)
    few = [Batch(torch.randn(2, 64, generator=generator), NONE, NONE) for _ in range(4)]
    before = copy.deepcopy(model.state_dict())
    assert refit(model, {"0.weight": torch.rand(8, 64, generator=generator) > 0.5}, few) == {}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(8, 8, 3),
    ],
)
def test_layers_that_are_left_alone(layer: nn.Module) -> None:
    before = layer.weight.clone()  # type: ignore[operator]
    model = nn.Sequential(layer)
    assert refit(model, {"0.weight": torch.rand(before.shape) > 0.5}, batches(4, 8, 6, 6, count=4)) == {}
    assert torch.equal(layer.weight, before)  # type: ignore[arg-type]


class _ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(input=self.first(input=x))
        return out


def test_a_layer_that_is_called_by_keyword_is_fitted_too() -> None:
    read = torch.arange(8) < 6
    pruned = nn.Module()
    pruned.first, pruned.second = nn.Linear(8, 6), nn.Linear(6, 8)
    share = reconstruct(_ByKeyword(), pruned, {"second": Reader(read, torch.ones(8, dtype=torch.bool))}, batches(40, 8))
    assert 0 < share["second"] < 1


def test_a_pruned_network_answers_more_as_it_did() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    given = batches(16, 3, 8, 8)
    off = []
    for fit in (False, True):
        order = Order(Goal(asked=0.4), reconstruct=fit, grounds=Grounds(given))
        pruned, report = prune_channels(model, (2, 3, 8, 8), order)
        assert bool(report.fitted) is fit
        off.append((pruned(given[3].inputs) - model(given[3].inputs)).norm().item())
    assert off[1] < 0.5 * off[0]


def test_a_transformer_of_ours_answers_more_as_it_did() -> None:
    torch.manual_seed(0)
    spec = TokenInput(50, 8)
    model = build_model("transformer", {"depth": 1, "heads": 4, "width": 32, "dropout": 0.0}, 3, spec).eval()
    tokens = torch.randint(1, 50, (8, 32, 8), generator=torch.Generator().manual_seed(1))
    given = [Batch(rows, NONE, NONE) for rows in tokens]
    off = []
    for fit in (False, True):
        pruned, report = prune_heads(model, spec, Order(Goal(asked=0.3), reconstruct=fit, grounds=Grounds(given)))
        assert set(report.fitted) == ({"layers.0.attention.out", "layers.0.feed_forward.down"} if fit else set())
        off.append((pruned(tokens[3]) - model(tokens[3])).norm().item())
    assert off[1] < 0.8 * off[0]
