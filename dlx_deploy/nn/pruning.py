"""Structured pruning: whole channels are removed, so that the network is smaller and faster on any runtime."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.artifact import Channels, channel_counts
from dlx_deploy.nn.augment import Normalise
from dlx_deploy.nn.data.artifact import Images

__all__ = ["PruneReport", "count_macs", "mildest", "prune_channels", "recalibrate_batchnorm"]

log = logging.getLogger(__name__)

# Channel counts move in steps, so the share of operations does too: this near to it counts as reached.
_TOLERANCE = 0.02
_BISECTIONS = 10

Group = Any  # torch_pruning's, which is untyped


@dataclass(frozen=True)
class PruneReport:
    """What was removed. ``channels`` holds the layers whose channel counts changed, as they are now."""

    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    channels: dict[str, Channels]

    @property
    def reduction(self) -> float:
        """The share of multiply-accumulates that was removed, 0..1."""
        return 1 - self.macs_after / self.macs_before


@dataclass(frozen=True)
class _Prunable:
    """Layers whose output channels go together: ``channels`` of them, in blocks of ``step`` that must stay whole."""

    graph: Any
    group: Group
    channels: int
    step: int
    blocks: int  # of a grouped convolution: the same channels go in each

    def kept(self, ratio: float) -> int:
        """How many channels stay when ``ratio`` of them should go: the nearest multiple of ``step``, at least one."""
        wanted = math.floor(self.channels * (1 - ratio) / self.step + 0.5) * self.step
        return min(max(wanted, self.step), self.channels)


def prune_channels(
    model: nn.Module, shape: Sequence[int], reduce_macs: float, *, round_to: int = 8, keep_trunk: bool = True
) -> tuple[nn.Module, PruneReport]:
    """A smaller copy of ``model`` with ``reduce_macs`` (0..1) of its multiply-accumulates gone, and what was removed.

    ``shape`` is that of an image batch [N, C, H, W]. Channels with the smallest L2 norm over all layers that they tie
    together go first (DepGraph, Fang et al. 2023), the same share everywhere; channel counts become multiples of
    ``round_to``. The mildest pruning that reaches ``reduce_macs`` is taken. Left alone: the classifier, layers that
    other kinds of parameters depend on (attention, layer normalisation), and with ``keep_trunk`` all layers whose
    outputs a residual sum ties together.

    Raises:
        StageFailed: the network cannot be traced, so much cannot be removed, or the result does not compute.
    """
    before = count_macs(model, torch.zeros(1, *shape[1:]))
    survey = _prunable(copy.deepcopy(model), shape, round_to, keep_trunk)
    plans: dict[tuple[int, ...], tuple[nn.Module, int]] = {}

    def attempt(ratio: float) -> tuple[nn.Module, int]:
        kept = tuple(p.kept(ratio) for p in survey)
        if kept not in plans:
            candidate = copy.deepcopy(model)
            _remove(_prunable(candidate, shape, round_to, keep_trunk), kept)
            plans[kept] = candidate, _checked_macs(model, candidate, shape)
        return plans[kept]

    options = f"round_to = {round_to}, keep_trunk = {str(keep_trunk).lower()}"
    pruned, after = mildest(attempt, before, reduce_macs, options)
    counts = channel_counts(model)
    changed = {name: now for name, now in channel_counts(pruned).items() if now != counts[name]}
    report = PruneReport(before, after, _count_params(model), _count_params(pruned), changed)
    log.info("removed %.1f %% of %d MACs; %d layers changed", 100 * report.reduction, before, len(changed))
    return pruned.train(model.training), report


def recalibrate_batchnorm(model: nn.Module, images: Images, normalise: Normalise, batch: int = 128) -> None:
    """Set the running statistics of every batch normalisation in ``model`` to their plain average over ``images``.

    Removing channels shifts what later layers see; this alone wins back a good part of the accuracy, without training.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta, training = [m.momentum for m in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
        norm.train()
    parts = max(len(images) // batch, 1)
    with torch.no_grad():
        for part in np.array_split(np.arange(len(images)), parts):
            model(normalise(torch.from_numpy(np.array(images[part[0] : part[-1] + 1]))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


def count_macs(model: nn.Module, example: Tensor) -> int:
    """The multiply-accumulates of ``model`` for ``example``, a batch of one."""
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(training)
    return int(counter.get_total_flops()) // 2


def mildest(
    attempt: Callable[[float], tuple[nn.Module, int]], before: int, reduce_macs: float, options: str
) -> tuple[nn.Module, int]:
    """What ``attempt`` gives (a network and its operations) for the smallest ratio that removes ``reduce_macs``.

    The share removed must grow with the ratio.
    """
    enough = (1 - reduce_macs + _TOLERANCE) * before
    low, high = 0.0, 1.0
    best = attempt(low)
    if reduce_macs <= 0 or best[1] <= enough - _TOLERANCE * before:
        return best
    best = attempt(high)
    if best[1] > enough:
        raise StageFailed(
            f"prune.reduce_macs is {reduce_macs:g}; with {options} at most {1 - best[1] / before:.3f} of the "
            "multiply-accumulates can be removed: lower prune.reduce_macs or round_to, or set keep_trunk = false"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = attempt(middle)
        if found[1] <= enough:
            high, best = middle, found
        else:
            low = middle
    return best


def _prunable(model: nn.Module, shape: Sequence[int], round_to: int, keep_trunk: bool) -> list[_Prunable]:
    graph = tp.DependencyGraph()
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bare parameters are said to be pruned; we leave their groups alone
            graph.build_dependency(model, example_inputs=torch.zeros(1, *shape[1:]))
            groups = list(graph.get_all_groups(root_module_types=(nn.Conv2d, nn.Linear)))
    except Exception as e:  # a tracer may fail in any way on a network it does not understand
        raise StageFailed(
            f"prune: the network cannot be traced ({type(e).__name__}: {e}); set prune.enabled = false to ship it as is"
        ) from e
    found = []
    for group in groups:
        root = group[0].dep.target.module
        if _is_safe(graph, group) and not (keep_trunk and _is_trunk(group)):
            blocks = _blocks(group)
            channels = graph.get_out_channels(root)
            found.append(_Prunable(graph, group, channels, math.lcm(round_to, blocks), blocks))
    return found


def _is_safe(graph: Any, group: Group) -> bool:
    """Whether all that depends on these channels is of a kind that we can shrink, record and rebuild."""
    for dep, indices in group:
        module = dep.target.module
        ours = isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm)
        if not (ours or type(module).__module__.startswith("torch_pruning")):
            return False  # attention, layer normalisation, a bare parameter
        if not graph.is_out_channel_pruning_fn(dep.handler):
            continue
        if not dep.target.outputs:
            return False  # the classifier: these channels are the network's outputs
        if isinstance(module, nn.Conv2d | nn.Linear) and len(set(indices)) != graph.get_out_channels(module):
            return False  # layers of different widths tied together: channels were padded or cut on the way
    return True


def _is_trunk(group: Group) -> bool:
    """Whether a sum of two computed tensors ties these channels together."""
    return any(
        "AddBackward" in dep.target.name and len(dep.target.inputs) > 1
        for dep, _ in group
        if type(dep.target.module).__module__.startswith("torch_pruning")
    )


def _blocks(group: Group) -> int:
    """The number of equal blocks that grouped convolutions cut these channels into; depthwise ones do not count."""
    modules = [dep.target.module for dep, _ in group]
    grouped = [m.groups for m in modules if isinstance(m, nn.Conv2d) and 1 < m.groups < m.out_channels]
    return math.lcm(1, *grouped)


def _remove(targets: Sequence[_Prunable], kept: Sequence[int]) -> None:
    """Remove all but ``kept`` channels of each target. All are ranked before any is touched."""
    doomed = [_weakest(target, n) for target, n in zip(targets, kept, strict=True)]
    for target, indices in zip(targets, doomed, strict=True):
        if indices:
            dep = target.group[0].dep
            target.graph.get_pruning_group(dep.target.module, dep.handler, indices).prune()


def _weakest(target: _Prunable, kept: int) -> list[int]:
    """All but ``kept`` channels, those of the smallest L2 norm, the same ones in every block; ascending."""
    if kept == target.channels:
        return []
    importance = tp.importance.GroupMagnitudeImportance(p=2)(target.group)
    per_block = importance.view(target.blocks, -1).mean(dim=0)  # [channels / blocks]
    order = torch.argsort(per_block, stable=True)[: (target.channels - kept) // target.blocks]
    width = target.channels // target.blocks
    return sorted(int(i) + block * width for block in range(target.blocks) for i in order)


def _checked_macs(model: nn.Module, pruned: nn.Module, shape: Sequence[int]) -> int:
    """The operations of ``pruned``, once it has given finite outputs of the same shape as ``model``."""
    images = torch.linspace(-1, 1, math.prod(shape[1:])).view(1, *shape[1:])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected, seen = model(images), pruned(images)
    except RuntimeError as e:
        raise StageFailed(f"prune: the pruned network does not compute ({e}); set prune.keep_trunk = true") from e
    finally:
        model.train(training)
    if seen.shape != expected.shape or not bool(torch.isfinite(seen).all()):
        raise StageFailed(
            f"prune: the pruned network gives {list(seen.shape)}, finite: {bool(torch.isfinite(seen).all())}; "
            f"the network gave {list(expected.shape)}: set prune.keep_trunk = true"
        )
    return count_macs(pruned, torch.zeros(1, *shape[1:]))


def _count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
