"""Whether each row of a batch gets the answer that it would get alone, by torch, and which module is to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.checks.rows import Dependence, dependence, own_rows_differ
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.nn.export.spec import named_outputs
from dlx_deploy.nn.models.copies import doubled, exact
from dlx_deploy.nn.models.outputs import Outputs, tensors_of

__all__ = ["blame", "first_apart", "first_beyond", "mixes_in_double", "refuse_dependence", "refused_alone"]

ROUNDING = 1e-3
"""Of an output's largest value: what an untrained network's sums in another order change at most."""
SQUEEZED = "keep the batch axis where it is 1: x.flatten(1) instead of x.squeeze()"
STATISTICS = "give it running statistics (track_running_stats=True), or use GroupNorm, LayerNorm or InstanceNorm"
RANDOM = "draw nothing in evaluation mode: nn.Dropout instead of F.dropout, and no noise"
ACROSS = "compute each row from itself: nothing over axis 0, no row of another, no x.mean() over everything"


Batch = tuple[Tensor, ...]
"""What a network reads: a tensor for each of its inputs, the batch axis first."""


def blame(network: nn.Module, batch: Batch, tolerance: float) -> str:
    """Where the answer for a row first depends on the others of ``batch``, and what to do about it.

    ``network`` is in evaluation mode, ``batch`` what it reads, a few rows.
    """
    (first, _), (second, _) = (_recorded(network, batch) for _ in "ab")
    for once, again in zip(first, second, strict=False):
        if not _same(once.tensor, again.tensor):
            return f"{once} differs from one run to the next; {RANDOM}"
    alone = _alone(network, batch)
    for whole, singles in _met(first, alone):
        if any(single.tensor.ndim != whole.tensor.ndim for single in singles):
            return f"{whole} is {_shape(singles[0].tensor)} for one row; {SQUEEZED}"
        if whole.differs(singles, tolerance):
            return f"the first to do so: {whole}; {whole.remedy}"
    raised = next((error for _, error in alone if error), "")
    return f"{raised}; {SQUEEZED}" if raised else f"no single module is to blame; {ACROSS}"


def first_apart(network: nn.Module, batch: Batch, tolerance: float) -> str:
    """What first differs by more than ``tolerance`` between the rows of ``batch`` and each alone; empty if nothing."""
    met = _met(_recorded(network, batch)[0], _alone(network, batch))
    return next((str(whole) for whole, singles in met if whole.differs(singles, tolerance)), "")


def first_beyond(network: nn.Module, batch: Batch, largest: float = float(np.finfo(np.float32).max)) -> str:
    """What inside of ``network`` is first larger than ``largest``, or NaN; empty if nothing is."""
    seen, _ = _recorded(network, batch)
    return next((str(one) for one in seen if not bool((one.tensor.abs() <= largest).all())), "")


def mixes_in_double(network: nn.Module, seen: Dependence, ask: Callable[[nn.Module, float], Dependence | None]) -> bool:
    """Whether rows depend on their neighbours in float64 too, where no rounding hides who is whose; so without float64.

    ``seen``: in float32; ``ask``: gives the dependence of a network beyond a tolerance. Sums over a batch of another
    size are taken in another order, and a network may make any part of its answer of what that changes: in float64
    nothing is left of it.
    """
    try:
        return ask(doubled(network), exact(seen.relative)) is not None
    except Exception:  # a network's forward may raise anything, and one that makes float32 numbers does
        return True


def refused_alone(network: nn.Module, batch: Batch) -> str:
    """Why ``network`` cannot answer one row of ``batch`` as it answers all: what it raised or gave; empty if it can."""
    with torch.no_grad():
        answers = network(*batch)
    seen, raised = _recorded(network, _rows(batch, 0, 1))
    if raised:
        return f"the model cannot take a batch of 1: {raised}; {SQUEEZED}"
    together = tensors_of(answers)
    for whole, alone in zip(together, (each.tensor for each in seen[-len(together) :]), strict=True):
        if alone.shape != (1, *whole.shape[1:]):
            shapes = f"{_shape(whole)} for a batch of {len(batch[0])} and {_shape(alone)} for a batch of 1"
            return f"the model gives {shapes}; {blame(network, batch, 1.0)}"
    return ""


def refuse_dependence(network: nn.Module, rows: Batch, outputs: Outputs, fixed: int | None = None) -> None:
    """Nothing, once an untrained ``network`` of ``outputs`` has answered each of ``rows`` as its own, in batches of any
    size or ``fixed``.

    Raises:
        ConfigError: it has not; names the module.
    """
    training = network.training
    network.eval()
    try:
        if fixed is None and (why := refused_alone(network, rows)):
            raise ConfigError(f"{why}; a device asks for one answer at a time")
        with torch.no_grad():
            samples = Samples({str(i): tensor.numpy() for i, tensor in enumerate(rows)})

            def ask(asked: nn.Module, tolerance: float) -> Dependence | None:
                def run(part: Samples, size: int) -> Arrays:
                    return _answers(asked, part, outputs, size)

                return dependence(run, samples, run(samples, fixed or len(samples)), tolerance, fixed)

            depends = ask(network, ROUNDING)
            mixes = depends and mixes_in_double(network, depends, ask)
        if mixes:
            culprit = blame(network, rows, ROUNDING)
            raise ConfigError(f"the network's answers depend on the batch: {depends}; {culprit}")
    finally:
        network.train(training)


def _answers(network: nn.Module, samples: Samples, outputs: Outputs, size: int) -> Arrays:
    """The network's outputs: ``size`` samples at a time, the last of them filled up with copies."""
    parts = []
    for part in samples.batches(size, fill=True):
        tensors = (torch.from_numpy(np.ascontiguousarray(values)) for values in part.arrays.values())
        parts.append(named_outputs(network(*tensors), outputs))
    return {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in outputs}


def _rows(batch: Batch, start: int, end: int) -> Batch:
    return tuple(tensor[start:end] for tensor in batch)


@dataclass(frozen=True)
class _Seen:
    """A tensor that went into a module, or came out of it."""

    name: str
    module: nn.Module
    entered: bool
    tensor: Tensor

    def __str__(self) -> str:
        return f"the {'input' if self.entered else 'output'} of {_described(self.name, self.module)}"

    def differs(self, singles: Sequence[_Seen], tolerance: float) -> bool:
        """Whether it is not made of what each row gives alone."""
        return own_rows_differ(self.tensor.numpy(), [single.tensor.numpy() for single in singles], tolerance)

    @property
    def remedy(self) -> str:
        if self.entered:
            return f"it is mixed in the forward of the module around it; {ACROSS}"
        without = isinstance(self.module, _BatchNorm) and self.module.running_mean is None
        return STATISTICS if without else ACROSS


_Recorded = tuple[list["_Seen"], str]


def _alone(network: nn.Module, batch: Batch) -> list[_Recorded]:
    return [_recorded(network, _rows(batch, i, i + 1)) for i in range(len(batch[0]))]


def _met(first: Sequence[_Seen], alone: Sequence[_Recorded]) -> Iterator[tuple[_Seen, list[_Seen]]]:
    """What a batch met with what each of its rows met there alone, for as long as all take the same way."""
    for position, whole in enumerate(first):
        singles = [seen[position] for seen, _ in alone if position < len(seen)]
        if len(singles) < len(alone) or any(single.name != whole.name for single in singles):
            return
        yield whole, singles


def _recorded(network: nn.Module, batch: Batch) -> _Recorded:
    """Every module's first input and output, in the order in which they came to be, and what was raised where."""
    seen: list[_Seen] = []
    inside: list[tuple[str, nn.Module]] = []

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            inside.append((name, module))
            if module is not network and inputs and isinstance(inputs[0], Tensor):
                seen.append(_Seen(name, module, True, inputs[0].detach().clone()))

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            inside.pop()
            tensors = list(output) if isinstance(output, (tuple, list)) else [output]
            # Of the network itself all are answers; what else a module gives (states, weights) may be of no use.
            for tensor in tensors if module is network else tensors[:1]:
                if isinstance(tensor, Tensor):
                    seen.append(_Seen(name, module, False, tensor.detach().clone()))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    handles = [handle for name, module in network.named_modules() for handle in watch(name, module)]
    try:
        with torch.no_grad():
            network(*batch)
    except Exception as e:  # a network's forward may raise anything
        text = str(e).strip().splitlines() or [type(e).__name__]
        return seen, f"{_described(*inside[-1])} raises {type(e).__name__}: {text[0]}"
    finally:
        for handle in handles:
            handle.remove()
    return seen, ""


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))


def _described(name: str, module: nn.Module) -> str:
    return f"{repr(name) if name else 'the whole network'} ({type(module).__name__})"


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype)[6:]}{list(tensor.shape)}"
