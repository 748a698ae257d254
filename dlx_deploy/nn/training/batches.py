"""What one training step sees: whole epochs planned from (seed, epoch) alone, shared by any number of processes.

A plan is a list of steps, and a step is one array of row numbers for each process. Every sample comes exactly once an
epoch; every process computes the same plan and takes its part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlx_deploy.config import Training
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.dataset import Dataset
from dlx_deploy.nn.data.token_batches import plan_batches
from dlx_deploy.nn.training.augment import Mixer, Moves, Normalise, drawn_moves, moved, rand_augmented

__all__ = [
    "Batch",
    "BatchSource",
    "Feed",
    "ImageBatches",
    "ImageFeed",
    "Plan",
    "TokenBatches",
    "TokenFeed",
    "TrainData",
]

Plan = list[list[npt.NDArray[np.int64]]]
"""Per step one array of row numbers for each process."""
HELD_BYTES = 4 << 30
"""Images of up to so many bytes are held on the training device; larger sets are read from the memory map."""


@dataclass(frozen=True)
class Batch:
    """One pass. ``targets``: as stored, [N, ...]; labels after mixing float32[N, classes]. ``rows``: int64[N] on
    the CPU.

    ``weights``: float32[N], what each sample counts in the mean loss of an optimizer step; ``None``: all the same.
    ``views``: int64[N] on the CPU, how each image was moved (``views.Views``); ``None``: not at all. ``done``: the
    share of the run's optimizer steps that came before, 0..1, by which a loss may change.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    weights: Tensor | None = None
    views: Tensor | None = None
    done: float = 1.0


@dataclass(frozen=True)
class TrainData:
    """What a run learns from and is watched on, and how stored rows become what a network reads.

    ``aligned``: targets [N, H, W] say something of each pixel, and move with the images.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    validation_inputs: npt.NDArray[Any]
    validation_targets: npt.NDArray[Any]
    feed: Feed
    classes: int
    aligned: bool = False

    @classmethod
    def of(cls, data: Dataset, feed: Feed) -> TrainData:
        """The training and validation splits of ``data``."""
        aligned = data.header.targets.aligned
        return cls(*data.split("train"), *data.split("validation"), feed, len(data.classes), aligned)


class Feed(Protocol):
    """Rows as they are stored (uint8 images, padded int32 tokens) → what a network reads."""

    def __call__(self, rows: Tensor, /) -> Tensor:
        """What a network reads for ``rows``, a new tensor."""
        ...

    def source(self, data: TrainData, settings: Training, device: torch.device) -> BatchSource:
        """The batches of ``data`` as ``settings`` want them, on ``device``."""
        ...


class ImageFeed(Normalise):
    """uint8[N, H, W, C] → float32[N, C, H, W], normalised."""

    def source(self, data: TrainData, settings: Training, device: torch.device) -> BatchSource:
        """Batches of images, augmented."""
        return ImageBatches(data, settings, device)


class TokenFeed:
    """Padded tokens int32[N, L] → int64[N, longest of these rows]."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, tokens: Tensor) -> Tensor:
        """``tokens`` without the columns that hold padding only."""
        return tokens[:, : max(int(self.lengths(tokens).max()), 1)].to(torch.int64)

    def lengths(self, tokens: Tensor) -> Tensor:
        """int64[N]: how many tokens of each row are no padding."""
        return (tokens != self.pad_id).sum(dim=1)

    def source(self, data: TrainData, settings: Training, device: torch.device) -> BatchSource:
        """Batches of as many tokens as the budget allows."""
        return TokenBatches(data, settings, device, self.pad_id)


class BatchSource(Protocol):
    """Plans epochs and makes batches."""

    noun: str

    def plan(self, seed: int, processes: int) -> Plan:
        """The epoch of ``seed``."""
        ...

    def weight(self, rows: npt.NDArray[np.int64]) -> float:
        """What ``rows`` count in the mean loss."""
        ...

    def batch(self, step: Sequence[npt.NDArray[np.int64]], process: int, generator: torch.Generator) -> Batch:
        """The part of ``process`` of one step."""
        ...


class ImageBatches:
    """Random batches of images of equal size, give or take one, augmented on the training device."""

    noun = "images"

    def __init__(self, data: TrainData, settings: Training, device: torch.device) -> None:
        _check_batch(len(data.inputs), settings.batch_size)
        self._feed, self._settings, self._device = data.feed, settings, device
        self._count, self._aligned = len(data.inputs), data.aligned
        self._images, self._targets = _Rows(data.inputs, device), _Rows(data.targets, device)
        self._mixer = Mixer(settings.mixup, settings.cutmix, data.classes)

    def plan(self, seed: int, processes: int) -> Plan:
        """The epoch of ``seed``: no batch of one image, which batch normalisation cannot take."""
        steps = max(min(math.ceil(self._count / self._settings.batch_size), self._count // (2 * processes)), 1)
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(seed))
        return [[part.numpy() for part in torch.tensor_split(step, processes)] for step in order.tensor_split(steps)]

    def weight(self, rows: npt.NDArray[np.int64]) -> float:
        """Every image counts 1."""
        return float(len(rows))

    def batch(self, step: Sequence[npt.NDArray[np.int64]], process: int, generator: torch.Generator) -> Batch:
        """The part of ``process``; shifts and mirrorings are drawn for all parts, so that they do not depend on it."""
        s, rows = self._settings, step[process]
        before, total = sum(len(part) for part in step[:process]), sum(len(part) for part in step)
        every = drawn_moves(self._images.size, total, s.shift_px, s.flip, generator)
        moves = every[before : before + len(rows)].to(self._device) if every else None
        images = self._feed(rand_augmented(self._images.at(rows, moves), s.rand_augment))
        images, targets = self._mixer(images, self._targets.at(rows, moves if self._aligned else None))
        return Batch(images, targets, torch.from_numpy(rows), views=moves.views if moves else None)


class _Rows:
    """An array of samples, on the training device if it is small enough to stay there."""

    def __init__(self, stored: npt.NDArray[Any], device: torch.device) -> None:
        self._stored, self._device = stored, device
        self._held = torch.from_numpy(np.array(stored)).to(device) if stored.nbytes <= HELD_BYTES else None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._stored.shape[1:3]
        return height, width

    def at(self, rows: npt.NDArray[np.int64], moves: Moves | None) -> Tensor:
        """Those at ``rows``, moved."""
        if self._held is not None:
            return moved(self._held, torch.from_numpy(rows), moves)
        read = torch.from_numpy(np.ascontiguousarray(self._stored[rows])).to(self._device)
        return moved(read, torch.arange(len(rows)), moves)


class TokenBatches:
    """Sequences of like length, at most ``max_tokens`` tokens with padding in a batch."""

    noun = "sequences"

    def __init__(self, data: TrainData, settings: Training, device: torch.device, pad_id: int) -> None:
        self._tokens, self._targets = data.inputs, torch.from_numpy(np.array(data.targets))
        self._feed, self._settings, self._device = data.feed, settings, device
        self.lengths = np.asarray((np.asarray(data.inputs) != pad_id).sum(axis=1), dtype=np.int64)

    def plan(self, seed: int, processes: int) -> Plan:
        """The epoch of ``seed``, by ``token_batches.plan_batches``."""
        return plan_batches(self.lengths, self._settings.max_tokens, seed, 0, processes)

    def weight(self, rows: npt.NDArray[np.int64]) -> float:
        """A sequence counts 1, or as many as it has tokens."""
        return float(self.lengths[rows].sum() if self._settings.weigh_by == "tokens" else len(rows))

    def batch(self, step: Sequence[npt.NDArray[np.int64]], process: int, generator: torch.Generator) -> Batch:
        """The part of ``process``."""
        rows, idle = step[process], not len(step[process])
        if idle:  # it takes part in the exchange of gradients, with a sequence that counts nothing
            rows = next(part for part in step if len(part))[:1]
        tokens = self._feed(torch.from_numpy(np.ascontiguousarray(self._tokens[rows]))).to(self._device)
        by_tokens = self._settings.weigh_by == "tokens"
        weights = torch.from_numpy(self.lengths[rows]).float() if by_tokens else torch.ones(len(rows))
        weights = torch.zeros(1) if idle else weights
        position = torch.from_numpy(rows)
        return Batch(tokens, self._targets[position].to(self._device), position, weights.to(self._device))


def _check_batch(images: int, batch_size: int) -> None:
    if batch_size < 2:
        raise ConfigError(f"batch_size is {batch_size}; batch normalisation needs at least 2 images in a batch")
    if images < batch_size:
        raise DataError(
            f"the training split has {images} images and batch_size is {batch_size}; "
            "a batch must not be larger than the split: add images or lower batch_size"
        )
