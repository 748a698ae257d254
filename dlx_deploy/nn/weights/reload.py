"""Whether a network that was kept and loaded again answers as it did."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.copies import copied, doubled, exact
from dlx_deploy.nn.models.outputs import tensors_of
from dlx_deploy.nn.weights.outside import REMEDY

__all__ = ["TOLERANCE", "refuse_other_answers"]

TOLERANCE = 1e-4
"""Of the largest value of an output: weights that lie otherwise in memory are summed in another order."""
_SHOWN = 5

_log = logging.getLogger(__name__)


def refuse_other_answers(model: nn.Module, again: nn.Module, samples: Tensor, lost: Sequence[str]) -> None:
    """Nothing, if ``again`` answers to ``samples`` as ``model`` does, both in evaluation mode.

    ``lost``: what is known to differ between them; caches do, and change no answer. Answers that are alike in float64
    differ by rounding alone, which says nothing about what was kept: a warning tells of it.

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
    if gap > TOLERANCE and _alike_in_double(model, again, samples, min(exact(gap), TOLERANCE)):
        _log.warning(
            "rounding in float32 alone changes the model's answers by %.2g of the largest value (in float64 they stay "
            "the same): train it longer, or with a lower learning rate",
            gap,
        )
    elif gap > TOLERANCE:
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        why = f"it computes with what no state dict holds: {', '.join(lost[:_SHOWN])}{more}; {REMEDY}"
        if not lost:
            why = (
                "no attribute of its modules differs: it must not compute with random numbers, time or other processes"
            )
        raise ConfigError(f"the model, built again and loaded, {seen}; {why}")


def _alike_in_double(model: nn.Module, again: nn.Module, samples: Tensor, tolerance: float) -> bool:
    """Whether both answer alike in float64, within ``tolerance``; not so where one cannot compute in it."""
    try:
        twin = copied(model)
        if _furthest(_answers(model, samples, 4), _answers(twin, samples, 4)) > TOLERANCE:
            return False  # what is lost may be what a copy loses too
        first, second = (_answers(doubled(each), samples, 4) for each in (twin, again))
    except (ConfigError, RuntimeError, TypeError):  # what cannot be copied, or makes float32 numbers itself
        return False
    return _furthest(first, second) <= tolerance


def _answers(model: nn.Module, samples: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Every output, float32 or float64[N, ...], on the CPU, with other random numbers for each ``seed``; modes are put
    back."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _evaluating(model), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        try:
            out: object = model(samples.to(device))
        except Exception as e:  # a network's forward may raise anything
            raise ConfigError(f"the model does not take {list(samples.shape)}: {type(e).__name__}: {e}") from e
    if not (tensors := tensors_of(out)):
        raise ConfigError(f"the model gives a {type(out).__name__}; it must give a tensor, or a tuple of tensors")
    return tuple(_floating(tensor.detach()).cpu() for tensor in tensors)


def _floating(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


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
