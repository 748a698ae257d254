"""What a network costs, and what a plan leaves of that: multiply-accumulates, parameters or milliseconds."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.batches import Reads, one
from dlx_deploy.nn.pruning.groups import Network, Plan, remove
from dlx_deploy.nn.pruning.order import Order
from dlx_deploy.nn.weights.attention import operation_by_operation

__all__ = ["copied", "cost_of", "costs_of", "count_macs", "count_parameters"]


def cost_of(model: nn.Module, reads: Reads, order: Order) -> float:
    """What the goal of ``order`` counts of ``model``: multiply-accumulates of a sample, parameters, milliseconds."""
    if order.goal.is_latency:
        assert order.grounds.meter is not None
        return order.grounds.meter.ms(model)
    return count_parameters(model) if order.goal.key == "reduce_parameters" else count_macs(model, one(reads))


def costs_of(network: Network, model: nn.Module, before: float, order: Order) -> Callable[[Plan], float]:
    """The same of what a plan leaves of ``model``, which costs ``before``."""
    meter = order.grounds.meter
    if order.goal.is_latency and meter is not None:
        known: dict[tuple[tuple[str, bytes], ...], float] = {(): before}  # slow to tell, and not the same each time

        def measured(plan: Plan) -> float:
            key = tuple((name, classes.tobytes()) for name, classes in sorted(plan.items()))
            if key not in known:
                pruned = copied(model)
                remove(pruned, network, plan)
                known[key] = meter.ms(pruned)
            return known[key]

        return measured
    removed = network.parameters_removed if order.goal.key == "reduce_parameters" else network.macs_removed
    return lambda plan: before - removed(plan)


def count_macs(model: nn.Module, example: Tensor) -> int:
    """The multiply-accumulates of ``model`` for ``example``, a batch of one."""
    training = model.training
    model.eval()
    with torch.no_grad(), operation_by_operation(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(training)
    return int(counter.get_total_flops()) // 2


def copied(model: nn.Module) -> nn.Module:
    """A copy of ``model``.

    Raises:
        StageFailed: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as e:  # a weight computed from others outside of torch's parametrizations
        raise StageFailed(
            f"prune: the network cannot be copied ({e}); use torch.nn.utils.parametrizations, or set prune.enabled "
            "= false"
        ) from e


def count_parameters(model: nn.Module) -> int:
    """How many numbers ``model`` has learned; shared ones once."""
    return sum(p.numel() for p in model.parameters())
