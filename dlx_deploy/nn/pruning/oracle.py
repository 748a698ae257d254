"""Whether a pruned network is what pruning means: the network itself, deaf to the channels that were removed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.batches import Reads, noise, plain, several
from dlx_deploy.nn.pruning.groups import Network, Plan, remove, silence

__all__ = ["Oracle", "objection_to"]

# Rounding in float64 stays far below, a wrong channel far above; float32 is for networks that compute in nothing else.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}
_SEED = 20240229


@dataclass(frozen=True)
class _Subject:
    """A network in the precision it can be compared in, and the largest number in each of its outputs."""

    model: nn.Module
    dtype: torch.dtype
    scales: list[float]


@dataclass(frozen=True)
class Oracle:
    """Compares pruned copies of a network with silenced ones, on random inputs of what it ``reads``.

    It looks at the network as it is, and at a copy whose weights are drawn at random: a trained or a fresh network may
    hide a channel (a weight of zero, a head not yet trained), random weights do not.
    """

    network: Network
    reads: Reads
    real: _Subject
    random: _Subject
    trains: bool  # whether the network itself runs as in training

    @classmethod
    def of(cls, model: nn.Module, network: Network, reads: Reads) -> Oracle:
        """The oracle for ``model``, which is in evaluation mode and stays as it is.

        Raises:
            StageFailed: the network gives numbers that are not finite, so nothing can be compared.
        """
        reads = several(reads)
        real = _subject(copy.deepcopy(model), reads)
        if not all(math.isfinite(scale) for scale in real.scales):
            raise StageFailed(
                "prune: the network's answers to a batch of random numbers are not finite, so a pruned network cannot "
                "be compared with it; train it anew, or set prune.enabled = false"
            )
        random = _subject(_scrambled(model), reads)
        return cls(network, reads, real, random, _trains(random, random.model, reads) is None)

    def objection(self, plan: Plan) -> str:
        """Why ``plan`` is not pruning, if so: how its answers differ, or that there are none."""
        return self._structural(plan) or self._compare(self.real, plan)

    def offenders(self, plan: Plan) -> dict[str, str]:
        """The groups of ``plan`` without which nothing speaks against the rest, each with an objection."""
        objection = self.objection(plan) if plan else ""
        if not objection:
            return {}
        names = list(plan)
        if len(names) == 1:
            return {names[0]: objection}
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        blamed: dict[str, str] = {}
        for half in halves:
            blamed |= self.offenders({name: plan[name] for name in half})
        return blamed or dict.fromkeys(halves[1], objection)  # neither half alone is wrong, both together are

    def _structural(self, plan: Plan) -> str:
        """What random weights and training mode (parts that only training runs) say against ``plan``."""
        objection = self._compare(self.random, plan)
        if objection or not self.trains:
            return objection
        candidate = _copy_sharing(self.random.model)
        remove(candidate, self.network, plan)
        error = _trains(self.random, candidate, self.reads)
        return "" if error is None else f"it does not compute in training ({_named(error)})"

    def _compare(self, subject: _Subject, plan: Plan) -> str:
        pruned = _copy_sharing(subject.model)
        remove(pruned, self.network, plan)
        try:
            seen = _answers(pruned, self.reads, subject.dtype)
        except Exception as e:  # shapes that a user's network insists on, in any way
            return f"it does not compute ({_named(e)})"
        deaf = _copy_sharing(subject.model)
        silence(deaf, self.network, plan)
        than = "of the network without these channels"
        return _difference(_answers(deaf, self.reads, subject.dtype), seen, subject, than)


def objection_to(change: Callable[[nn.Module], None], model: nn.Module, reads: Reads) -> str:
    """How ``model``, in evaluation mode, answers otherwise after ``change``; empty: it does not.

    Looked at are, as ``Oracle`` does, the network as it is and a copy with random weights; ``model`` stays as it is.
    """
    reads = several(reads)
    for before in (copy.deepcopy(model), _scrambled(model)):
        subject = _subject(before, reads)
        after = _copy_sharing(subject.model)
        try:
            change(after)
            seen = _answers(after, reads, subject.dtype)
        except Exception as e:  # whatever a user's network does with what was changed
            return f"it does not compute ({_named(e)})"
        if objection := _difference(_answers(subject.model, reads, subject.dtype), seen, subject, "of before"):
            return objection
    return ""


def _subject(model: nn.Module, reads: Reads) -> _Subject:
    """Of ``model`` itself, whose precision changes."""
    for dtype in (torch.float64, torch.float32):
        model.to(dtype).eval()
        try:
            out = _answers(model, reads, dtype)
        except Exception:  # not every network computes in float64, and a user's may say so in any way
            if dtype == torch.float32:
                raise
            continue
        return _Subject(model, dtype, [float(t.double().abs().max()) for t in out])
    raise AssertionError("float32 answers or raises")


def _answers(model: nn.Module, reads: Reads, dtype: torch.dtype) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        out = model(noise(reads, dtype))
    return [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]


def _copy_sharing(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with buffers of its own and the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _difference(expected: Sequence[Tensor], seen: Sequence[Tensor], subject: _Subject, than: str) -> str:
    if [t.shape for t in seen] != [t.shape for t in expected]:
        return f"it gives {[list(t.shape) for t in seen]} instead of {[list(t.shape) for t in expected]}"
    for right, answer, scale in zip(expected, seen, subject.scales, strict=True):
        difference = float((answer.double() - right.double()).abs().max())
        if math.isfinite(scale) and not difference <= _TOLERANCE[subject.dtype] * scale:
            share = difference / scale if scale else math.inf
            return f"its answers are {share:.1e} of the largest off from those {than}"
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


def _trains(subject: _Subject, model: nn.Module, reads: Reads) -> Exception | None:
    """What goes wrong when ``model``, like ``subject``, runs as in training, if anything."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _copy_sharing(model).train()(plain(reads, subject.dtype))
    except Exception as e:  # a user's network may fail in any way
        return e
    return None


def _named(error: Exception) -> str:
    """Its kind and the first line of what it says: torch's messages may be long."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
