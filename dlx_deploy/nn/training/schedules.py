"""Learning rates over a run: cosine with warm-up, one-cycle, and cosine with warm restarts."""

from __future__ import annotations

import math

from dlx_deploy.config import Training
from dlx_deploy.errors import ConfigError

__all__ = ["check_schedule", "learning_rate"]

ONE_CYCLE_START = 25.0
"""The one-cycle policy starts at the peak over this …"""
ONE_CYCLE_END = 1e4
"""… and ends at that start over this: torch's defaults."""


def check_schedule(settings: Training) -> None:
    """Nothing, if the schedule fits into the run.

    Raises:
        ConfigError: a first restart after the end of training, or none given.
    """
    if settings.schedule != "cosine-restarts" or not settings.epochs:
        return
    section = type(settings).__name__.lower()
    if not 1 <= settings.restart_epochs <= settings.epochs:
        raise ConfigError(
            f"{section}.restart_epochs is {settings.restart_epochs} and {section}.epochs is {settings.epochs}; with "
            "schedule = 'cosine-restarts' the first cycle must be 1 epoch or more and not longer than training"
        )


def learning_rate(step: int, steps: int, settings: Training) -> float:
    """The rate of optimizer step ``step`` (0 .. steps - 1), ``steps`` being those of the whole run.

    - ``cosine``: a linear warm-up to the peak, then a cosine down towards 0.
    - ``one-cycle`` (Smith and Topin 2018): a cosine up from peak / 25, a cosine down to peak / 250,000.
    - ``cosine-restarts`` (SGDR, Loshchilov and Hutter 2017): cosines from the peak to 0, each ``restart_factor`` times
      as long as the one before it.
    """
    if settings.schedule == "one-cycle":
        return _one_cycle(step, steps, settings)
    if settings.schedule == "cosine-restarts":
        return _restarts(step, steps, settings)
    warmup = settings.warmup_fraction * steps
    if step < warmup:
        return settings.learning_rate * min((step + 1) / warmup, 1.0)
    return settings.learning_rate * _falling((step - warmup) / (steps - warmup))


def _one_cycle(step: int, steps: int, settings: Training) -> float:
    peak = settings.learning_rate
    start = peak / ONE_CYCLE_START
    end = start / ONE_CYCLE_END
    top, last = settings.warmup_fraction * steps - 1, steps - 1
    if step <= top:
        return peak + (start - peak) * _falling(step / top) if top > 0 else peak
    return end + (peak - end) * _falling((step - top) / (last - top))


def _restarts(step: int, steps: int, settings: Training) -> float:
    length = steps * settings.restart_epochs / settings.epochs
    begun = 0.0
    while step - begun >= length:
        begun += length
        length *= settings.restart_factor
    return settings.learning_rate * _falling((step - begun) / length)


def _falling(share: float) -> float:
    """Half a cosine: 1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * share))
