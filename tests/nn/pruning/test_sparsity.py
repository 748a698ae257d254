from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dlx_deploy.config import Prune
from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.sparsity import check_sparsity, sparsity_masks, two_four_modules


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.Linear(12, 6),
    )


def share_of_zeros(tensor: torch.Tensor) -> float:
    return float((tensor == 0).double().mean())


def test_two_of_four_along_the_inputs_stay_and_they_are_the_largest() -> None:
    model = network()
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    masks = sparsity_masks(model, Prune(sparsity="2:4"))
    assert list(masks.kept) == ["1.weight", "4.weight"]
    assert masks.left == {
        "0": "3 input channels, no multiple of 4",
        "2": "a transposed convolution has no sparse kernels",
    }
    masks.keep(model)
    for name in masks.kept:
        old = np.moveaxis(before[name], 1, -1).reshape(-1, 4)
        new = np.moveaxis(model.get_parameter(name).detach().numpy(), 1, -1).reshape(-1, 4)
        assert (np.count_nonzero(new, axis=1) == 2).all()
        kept = np.where(new != 0, old, 0)
        assert np.array_equal(new, kept)  # what stays is as it was
        assert np.allclose(np.sort(np.abs(old), axis=1)[:, 2:].sum(1), np.abs(new).sum(1))
    assert two_four_modules(model) == ["1", "4"]
    assert masks.zeros == 0.5
    assert np.array_equal(before["0.weight"], model.get_parameter("0.weight").detach().numpy())


def test_weights_that_are_alike_leave_two_of_four() -> None:
    model = nn.Linear(8, 3)
    nn.init.ones_(model.weight)
    masks = sparsity_masks(model, Prune(sparsity="2:4"))
    assert masks.kept["weight"].reshape(-1, 4).sum(1).tolist() == [2] * 6


def test_a_dense_network_has_no_such_module() -> None:
    model = network()
    assert two_four_modules(model) == []
    nn.init.zeros_(model.get_parameter("4.weight"))
    assert two_four_modules(model) == []  # all zeros say nothing


def test_attention_projections_are_sparse_too() -> None:
    model = nn.MultiheadAttention(8, 2)
    masks = sparsity_masks(model, Prune(sparsity="2:4"))
    assert set(masks.kept) == {"in_proj_weight", "out_proj.weight"}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go(scope: str) -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("4.weight").mul_(10)
    masks = sparsity_masks(model, Prune(sparsity="unstructured", sparsity_ratio=0.3, sparsity_scope=scope))  # type: ignore[arg-type]
    everything = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in masks.kept])
    masks.keep(model)
    assert masks.zeros == pytest.approx(0.3, abs=0.01)
    shares = {name: share_of_zeros(model.get_parameter(name)) for name in masks.kept}
    if scope == "layer":
        assert all(share == pytest.approx(0.3, abs=0.02) for share in shares.values())
    else:
        assert shares["4.weight"] < 0.1 < shares["0.weight"]
        now = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in masks.kept])
        assert everything[now == 0].max() < everything[now != 0].min()


def test_a_layer_that_would_be_empty_is_named_with_the_most_that_can_go() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.arange(1.0, 101.0).reshape(10, 10))
        model.get_parameter("1.weight").copy_(torch.arange(1000.0, 1100.0).reshape(10, 10))
    with pytest.raises(
        StageFailed, match=r"sparsity_ratio is 0\.6, and '0\.weight' would .* at most 0\.495, .* 'layer'"
    ):
        sparsity_masks(model, Prune(sparsity="unstructured", sparsity_ratio=0.6))
    assert sparsity_masks(model, Prune(sparsity="unstructured", sparsity_ratio=0.495)).kept["0.weight"].sum() == 1
    layer = Prune(sparsity="unstructured", sparsity_ratio=0.999, sparsity_scope="layer")
    assert [int(mask.sum()) for mask in sparsity_masks(model, layer).kept.values()] == [1, 1]


def test_shared_weights_are_masked_once_and_computed_ones_left() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))
    model[1].weight = model[0].weight
    masks = sparsity_masks(model, Prune(sparsity="2:4"))
    assert list(masks.kept) == ["0.weight"]
    assert masks.left == {"2": "its weights are computed from other parameters"}
    assert masks.told("2:4").endswith("whole stay '2' (its weights are computed from other parameters)")


def test_nothing_to_make_sparse_is_said_from_shapes_alone() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    with pytest.raises(StageFailed, match=r"'2:4', and no layer of this Sequential can be so: '0' \(3 input channels"):
        check_sparsity(model, Prune(sparsity="2:4"))
    check_sparsity(model, Prune(sparsity="unstructured"))
    with pytest.raises(StageFailed, match="as it has no convolution or linear layer; set prune"):
        check_sparsity(nn.Sequential(nn.ReLU()), Prune(sparsity="unstructured"))
