"""Logits and accuracy of torch networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dlx_deploy.nn.data.dataset import Labels
from dlx_deploy.nn.training.batches import Feed

__all__ = ["evaluate", "predict_logits"]


def predict_logits(model: nn.Module, inputs: npt.NDArray[Any], feed: Feed, batch: int = 256) -> npt.NDArray[np.float32]:
    """The logits float32[N, classes] of ``inputs``, rows as stored, in evaluation mode; the mode is put back."""
    training, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    with torch.inference_mode():
        parts = [
            model(feed(torch.from_numpy(np.array(inputs[i : i + batch])).to(device))).float().cpu()
            for i in range(0, len(inputs), batch)
        ]
    model.train(training)
    return torch.cat(parts).numpy()


def evaluate(model: nn.Module, inputs: npt.NDArray[Any], labels: Labels, feed: Feed, batch: int = 256) -> float:
    """The share of ``inputs`` whose highest logit is at their label (top-1), 0..1."""
    return float(np.mean(predict_logits(model, inputs, feed, batch).argmax(axis=1) == labels))
