"""Whether a network that was kept and loaded again answers as it did."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.outputs import tensors_of
from dlx_deploy.nn.weights.outside import REMEDY

__all__ = ["TOLERANCE", "refuse_other_answers"]

TOLERANCE = 1e-4
"""Of the largest value of an output: weights that lie otherwise in memory are summed in another order."""
_SHOWN = 5


def refuse_other_answers(model: nn.Module, again: nn.Module, samples: Tensor, lost: Sequence[str]) -> None:
    """Nothing, if ``again`` answers to ``samples`` as ``model`` does, both in evaluation mode.

    ``lost``: what is known to differ between them; caches do, and change no answer.

    Raises:
        ConfigError: it does not, or ``model`` does not answer twice alike.
    """
    first = _answers(model, samples, 1)
    if (gap := _furthest(first, _answers(model, samples, 2))) > TOLERANCE:
        raise ConfigError(
            f"the model gives two answers to the same input in evaluation mode, {gap:.2g} of the largest value apart; "
            "what it draws at random or counts must stop there: use self.training, as in dropout(x, p, self.training)"
        )
    try:
        gap = _furthest(first, _answers(again, samples, 3))
        seen = f"gives other answers, {gap:.2g} of the largest value apart"
    except ConfigError as e:
        gap, seen = math.inf, f"fails: {e}"
    if gap > TOLERANCE:
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        why = f"it computes with what no state dict holds: {', '.join(lost[:_SHOWN])}{more}; {REMEDY}"
        if not lost:
            why = (
                "no attribute of its modules differs: it must not compute with random numbers, time or other processes"
            )
        raise ConfigError(f"the model, built again and loaded, {seen}; {why}")


def _answers(model: nn.Module, samples: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Every output, float32[N, ...], on the CPU, under other random numbers for each ``seed``; modes are put back."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _evaluating(model), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        try:
            out: object = model(samples.to(device))
        except Exception as e:  # a network's forward may raise anything
            raise ConfigError(f"the model does not take {list(samples.shape)}: {type(e).__name__}: {e}") from e
    if not (tensors := tensors_of(out)):
        raise ConfigError(f"the model gives a {type(out).__name__}; it must give a tensor, or a tuple of tensors")
    return tuple(tensor.detach().float().cpu() for tensor in tensors)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _furthest(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    """The gap of the output whose gap is largest; infinite where there are not as many."""
    return max(map(_gap, first, second)) if len(first) == len(second) else math.inf


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value; infinite where shapes, NaN or infinities differ."""
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    known = a.isfinite()
    a, b = a[known], b[known]
    tiny = torch.finfo(torch.float32).tiny
    return float((a - b).abs().max() / a.abs().max().clamp(min=tiny)) if len(a) else 0.0
