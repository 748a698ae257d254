"""How fast this machine trains a network: a few steps of it, timed."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.outputs import tensors_of
from dlx_deploy.nn.training.compute import set_threads, training_device

__all__ = ["seconds_per_sample"]

_SMALL = 16 * 16
"""Pixels of an image for which one thread trains faster than several."""
_FEWEST, _MOST = 2, 20


def seconds_per_sample(model: nn.Module, spec: InputSpec, batch: int, limit_s: float = 2.0) -> float:
    """The median time of a forward and a backward pass over ``batch`` samples, for one of them, on the training device.

    ``model`` is left there, with gradients. It takes ``limit_s`` or, with a slow network, three steps.
    """
    device = training_device()
    small = spec.example(1)[0].numel() <= 3 * _SMALL
    set_threads(1 if small and device.type == "cpu" else 0)
    model = model.to(device).train()
    samples = spec.drawn(batch).to(device)
    timings: list[float] = []
    begun = time.perf_counter()
    for i in range(_MOST):
        started = time.perf_counter()
        loss = torch.stack([output.float().square().mean() for output in tensors_of(model(samples))]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i:  # the first one allocates
            timings.append(time.perf_counter() - started)
        if len(timings) >= _FEWEST and time.perf_counter() - begun > limit_s:
            break
    return statistics.median(timings) / batch
