"""Answers of torch networks, and how good they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dlx_deploy.nn.models.outputs import Answer, tensors_of
from dlx_deploy.nn.training.batches import Feed
from dlx_deploy.nn.training.hooks import Metric

__all__ = ["evaluate", "predict", "predict_logits", "total"]

Reading = Callable[[torch.Tensor], torch.Tensor]
"""Rows as they are stored → what a network reads: a ``Feed``, or one that does more."""
BATCH = 256
"""Samples that are answered at a time, at most …"""
BATCH_VALUES = 1 << 24
"""… and their values, as answers may be as large …"""
SMALL_VALUES = 1 << 20
"""… up to which what a network makes of them is not looked at …"""
BATCH_BYTES = 64 << 20
"""… and what the module that gives most of all gives for them, of which two or three are in memory at once."""


def predict(model: nn.Module, inputs: npt.NDArray[Any], feed: Reading, batch: int | None = None) -> Answer:
    """The answers float32[N, ...] to ``inputs``, rows as stored, in evaluation mode; the mode is put back."""
    batch = batch or _rows_at_a_time(model, inputs, feed)
    training, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for i in range(0, len(inputs), batch):
            answer = model(feed(torch.from_numpy(np.array(inputs[i : i + batch])).to(device)))
            parts.append(tuple(tensor.float().cpu() for tensor in tensors_of(answer)))
    model.train(training)
    outputs = tuple(torch.cat(of).numpy() for of in zip(*parts, strict=True))
    return outputs if isinstance(answer, tuple) else outputs[0]


def predict_logits(
    model: nn.Module, inputs: npt.NDArray[Any], feed: Reading, batch: int | None = None
) -> npt.NDArray[np.float32]:
    """The one output, float32[N, classes, ...], for ``inputs``, as ``predict`` gives it."""
    logits: npt.NDArray[np.float32] = predict(model, inputs, feed, batch)
    return logits


def evaluate(
    model: nn.Module, inputs: npt.NDArray[Any], targets: npt.NDArray[Any], feed: Feed, metric: Metric
) -> float:
    """The score of ``model`` on ``inputs``, rows as stored, by ``metric``: 0..1."""
    return metric.score(total(model, inputs, targets, feed, metric), len(targets))


def total(
    model: nn.Module, inputs: npt.NDArray[Any], targets: npt.NDArray[Any], feed: Feed, metric: Metric
) -> npt.NDArray[np.float64]:
    """What the answers to ``inputs`` add to the metric's totals; of dense ones no more than a batch is held."""
    size = _rows_at_a_time(model, inputs, feed)
    totals = [
        metric.total(predict(model, inputs[i : i + size], feed, size), np.asarray(targets[i : i + size]))
        for i in range(0, len(targets), size)
    ]
    return np.asarray(np.sum(totals, axis=0))


def _rows_at_a_time(model: nn.Module, inputs: npt.NDArray[Any], feed: Reading) -> int:
    """How many of ``inputs`` are answered at a time: 1 to ``BATCH``, by what the network makes of the first one."""
    values = max(inputs[:1].size, 1)
    rows = max(min(BATCH, BATCH_VALUES // values), 1)
    if not len(inputs) or min(rows, len(inputs)) * values <= SMALL_VALUES:
        return rows
    return max(min(rows, BATCH_BYTES // max(_largest_bytes(model, inputs[:1], feed), 1)), 1)


def _largest_bytes(model: nn.Module, row: npt.NDArray[Any], feed: Reading) -> int:
    """The bytes of the largest tensor that a module of ``model`` gives for one row."""
    sizes = [0]

    def note(module: nn.Module, given: object, output: object) -> None:
        tensors = output if isinstance(output, tuple | list) else (output,)
        sizes.extend(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        predict(model, row, feed, 1)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)
