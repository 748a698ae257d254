"""What a plan takes out of a network is what is counted of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dlx_deploy.nn.pruning.costs import count_macs, count_parameters
from dlx_deploy.nn.pruning.groups import remove, resolve
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.trace import trace_channels

from .networks import SHAPE, Net, block

MIDDLE = {
    "plain": block(64, 64, 3),
    "depthwise": block(64, 64, 3, 64),
    "depthwise, twice as wide": block(64, 128, 3, 64),
    "grouped": block(64, 64, 3, 4),
}


@pytest.mark.parametrize("kind", MIDDLE)
def test_the_operations_that_a_plan_saves_are_those_that_are_gone(kind: str) -> None:
    middle = copy.deepcopy(MIDDLE[kind])
    last = block(middle[1].num_features, 32)  # type: ignore[arg-type]
    model = Net(lambda x, a, b, c: c(b(a(x))), block(32, 64), middle, last)
    network = resolve(trace_channels(model, torch.zeros(SHAPE), rule_for, 60), 1, SHAPE[0])
    plan = {group.name: group.classes[: group.step] for group in network.groups}
    pruned = copy.deepcopy(model)
    remove(pruned, network, plan)
    example = torch.zeros(1, *SHAPE[1:])
    assert {"parts.0.0", "parts.1.0"} <= {name for group in network.groups for name in group.layers}
    assert network.macs_removed(plan) == count_macs(model, example) - count_macs(pruned, example) > 0
    assert network.parameters_removed(plan) == count_parameters(model) - count_parameters(pruned) > 0


def test_a_linear_layer_is_counted_once_for_each_row() -> None:
    model = Net(lambda x, a, b: b(a(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), nn.Linear(32, 64), nn.Linear(64, 32))
    network = resolve(trace_channels(model, torch.zeros(SHAPE), rule_for, 60), 1, SHAPE[0])
    (inner,) = (group for group in network.groups if group.layers == ("parts.0",))
    assert network.macs_removed({inner.name: inner.classes[:3]}) == 3 * (32 + 32) * 8 * 8
