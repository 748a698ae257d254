"""Whether a pruned network is what pruning means: the network itself, deaf to the channels that were removed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from dlx_deploy.nn.channel_groups import Network, Plan, remove, silence

__all__ = ["Oracle"]

# Rounding in float64 stays far below, a wrong channel far above; float32 is for networks that compute in nothing else.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}
_SEED = 20240229


@dataclass(frozen=True)
class Oracle:
    """Compares pruned copies of ``model`` with silenced ones, on random inputs of ``shape`` [N, C, H, W].

    It looks at ``model`` as it is, and at copies whose weights are drawn at random: a trained or a fresh network may
    hide a channel (a weight of zero, a head not yet trained), random weights do not.
    """

    model: nn.Module
    scrambled: nn.Module
    network: Network
    shape: Sequence[int]

    @classmethod
    def of(cls, model: nn.Module, network: Network, shape: Sequence[int]) -> Oracle:
        """The oracle for ``model``, which is in evaluation mode and stays as it is."""
        return cls(model, _scrambled(model), network, (max(shape[0], 2), *shape[1:]))

    def objection(self, plan: Plan) -> str:
        """Why ``plan`` is not pruning, if so: the difference in its answers, or that there are none."""
        return self._compare(self.scrambled, plan) or self._untrainable(plan) or self._compare(self.model, plan)

    def offenders(self, plan: Plan) -> list[str]:
        """Groups of ``plan`` without which there is no objection to the rest; by bisection."""
        if not plan or not self.objection(plan):
            return []
        names = list(plan)
        if len(names) == 1:
            return names
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        found = [bad for half in halves for bad in self.offenders({name: plan[name] for name in half})]
        return found or halves[1]  # neither half alone is wrong, both together are

    def _compare(self, model: nn.Module, plan: Plan) -> str:
        for dtype in (torch.float64, torch.float32):
            try:
                whole = self._answers(model, {}, dtype, deaf=True)
                expected = self._answers(model, plan, dtype, deaf=True)
            except Exception:  # not every network computes in float64, and a user's may say so in any way
                if dtype == torch.float32:
                    raise
                continue
            try:
                seen = self._answers(model, plan, dtype, deaf=False)
            except Exception as e:  # shapes that a user's network insists on, in any way
                return f"it does not compute ({type(e).__name__}: {e})"
            return _difference(whole, expected, seen, _TOLERANCE[dtype])
        raise AssertionError("float32 answers or raises")

    def _answers(self, model: nn.Module, plan: Plan, dtype: torch.dtype, *, deaf: bool) -> list[Tensor]:
        candidate = copy.deepcopy(model)
        (silence if deaf else remove)(candidate, self.network, plan)
        candidate.to(dtype).eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_SEED)
            out = candidate(torch.randn(*self.shape, dtype=dtype))
        return [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]

    def _untrainable(self, plan: Plan) -> str:
        """Why the pruned network cannot be trained though the network can: parts that only training runs."""
        if _trains(self.scrambled, self.shape) is not None:
            return ""
        candidate = copy.deepcopy(self.scrambled)
        remove(candidate, self.network, plan)
        error = _trains(candidate, self.shape)
        return "" if error is None else f"it does not compute in training ({type(error).__name__}: {error})"


def _difference(whole: list[Tensor], expected: list[Tensor], seen: list[Tensor], tolerance: float) -> str:
    if [t.shape for t in seen] != [t.shape for t in expected]:
        return f"it gives {[list(t.shape) for t in seen]} instead of {[list(t.shape) for t in expected]}"
    for one, right, answer in zip(whole, expected, seen, strict=True):
        scale = float(one.double().abs().max())
        difference = float((answer.double() - right.double()).abs().max())
        if math.isfinite(scale) and not difference <= tolerance * scale:
            share = difference / scale if scale else math.inf
            return f"its answers are {share:.1e} of the largest off from those of the network without these channels"
    return ""


def _scrambled(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with random weights that keep activations near one, and statistics to match."""
    candidate = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for name, parameter in candidate.named_parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            elif name.rpartition(".")[2] == "bias":
                parameter.normal_(0, 0.2, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for norm in candidate.modules():
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_(0, 0.2, generator=generator)
                norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return candidate


def _trains(model: nn.Module, shape: Sequence[int]) -> Exception | None:
    """What goes wrong when ``model`` runs as in training, if anything."""
    candidate = copy.deepcopy(model).train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            candidate(torch.zeros(*shape))
    except Exception as e:  # a user's network may fail in any way
        return e
    return None
