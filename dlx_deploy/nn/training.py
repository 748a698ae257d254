"""One training loop for teacher, student and fine-tune: same seed and threads, same bits, resumed or not."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils import deterministic

from dlx_deploy.config import Training
from dlx_deploy.errors import ConfigError, DataError, StageFailed
from dlx_deploy.nn import train_state
from dlx_deploy.nn.augment import Normalise, shifted
from dlx_deploy.nn.data.artifact import DataArtifact, Images, Labels
from dlx_deploy.progress import Progress, silent

__all__ = [
    "LossFn",
    "RunContext",
    "TrainData",
    "TrainReport",
    "evaluate",
    "learning_rate",
    "predict_logits",
    "seed_all",
    "set_threads",
    "train",
]

_TELL_EVERY_S = 0.5

LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [N, classes], the normalised images [N, C, H, W] that gave them, labels [N]) → a scalar to minimise."""


@dataclass(frozen=True)
class TrainData:
    """What a run learns from and is watched on, and how pixels are normalised."""

    images: Images
    labels: Labels
    validation_images: Images
    validation_labels: Labels
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def of(cls, data: DataArtifact) -> TrainData:
        """The training and validation splits of ``data``."""
        return cls(*data.split("train"), *data.split("validation"), data.mean, data.std)


@dataclass(frozen=True)
class RunContext:
    """Where a run keeps its checkpoints (``None``: nowhere), its seed, and who watches."""

    checkpoints: Path | None = None
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True)
class TrainReport:
    """How a run went. ``losses`` and ``top1`` (validation) are per epoch; ``images_per_s`` is of this process."""

    epochs: int
    resumed_from: int = 0
    images_per_s: float = 0.0
    losses: tuple[float, ...] = ()
    top1: tuple[float, ...] = ()
    initial_top1: float = 0.0

    @property
    def last_top1(self) -> float:
        """Validation accuracy of the weights that were kept: those after the last epoch."""
        return self.top1[-1] if self.top1 else self.initial_top1

    @property
    def best_top1(self) -> float:
        """The highest validation accuracy seen after any epoch."""
        return max(self.top1, default=self.initial_top1)


@dataclass
class _History:
    losses: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)


def set_threads(count: int) -> int:
    """Make torch compute with ``count`` threads (0: every core this process may use); gives back the number.

    Also asks for deterministic algorithms: the same inputs give the same bits at the same number of threads.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = count or available
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over memory, to debug
    return threads


def seed_all(seed: int) -> None:
    """Seed torch's global generator, from which initial weights and dropout come."""
    torch.manual_seed(seed)


def learning_rate(step: int, steps: int, settings: Training) -> float:
    """The rate of ``step`` (0 .. steps - 1): a linear warm-up to the peak, then a cosine down towards 0."""
    warmup = settings.warmup_fraction * steps
    if step < warmup:
        return settings.learning_rate * min((step + 1) / warmup, 1.0)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(model: nn.Module, data: TrainData, settings: Training, loss: LossFn, run: RunContext) -> TrainReport:
    """Train ``model`` in place for ``settings.epochs`` epochs, from the newest checkpoint of this run if there is one.

    After every epoch the validation accuracy is taken and a checkpoint written. The final weights are those after the
    last epoch, and the same bits whether or not the run was interrupted (on a CPU, at the same number of threads).

    Raises:
        DataError: fewer training images than one batch.
        ConfigError: a batch of one image.
        StageFailed: the loss or its gradient is not finite.
        StoreError: a checkpoint cannot be written.
    """
    if settings.epochs:
        _check_batch(len(data.images), settings.batch_size)
    return _Loop(model, data, settings, loss, run).run_epochs()


class _Loop:
    """The state of one run between its epochs."""

    def __init__(self, model: nn.Module, data: TrainData, settings: Training, loss: LossFn, run: RunContext) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.data, self.settings, self.loss, self.run = data, settings, loss, run
        self.images = torch.from_numpy(np.array(data.images))  # a copy in memory: the artifact is memory-mapped
        self.labels = torch.from_numpy(np.array(data.labels))
        self.normalise = Normalise(data.mean, data.std)
        self.optimizer = _optimizer(model, settings)
        self.history = _History()
        count = len(self.images)
        # No batch of one image, which batch normalisation cannot take.
        self.batches = max(min(math.ceil(count / settings.batch_size), count // 2), 1)
        self.seconds, self.seen, self.told = 0.0, 0, time.monotonic()

    def run_epochs(self) -> TrainReport:
        epochs, run_digest = self.settings.epochs, _digest(self.settings, self.run.seed, len(self.images))
        start = 0
        if self.run.checkpoints is not None:
            start, tensors, history = train_state.latest(self.run.checkpoints, run_digest)
            if start:
                train_state.restore(tensors, self.model, self.optimizer)
                self.history = _History(**history)
        for epoch in range(start, epochs):
            self.history.losses.append(self._epoch(epoch))
            self.history.top1.append(self._validate())
            if self.run.checkpoints is not None:
                kept: dict[str, Any] = {"losses": self.history.losses, "top1": self.history.top1}
                train_state.write(self.run.checkpoints, epoch + 1, run_digest, self.model, self.optimizer, kept)
            self._say(epoch + 1)
        self.model.eval()
        return TrainReport(
            epochs=epochs,
            resumed_from=start,
            images_per_s=self.seen / self.seconds if self.seconds else 0.0,
            losses=tuple(self.history.losses),
            top1=tuple(self.history.top1),
            initial_top1=0.0 if self.history.top1 else self._validate(),
        )

    def _epoch(self, epoch: int) -> float:
        """Train for one epoch; the mean loss per image. All randomness comes from (seed, epoch)."""
        self.model.train()
        seed = int(np.random.SeedSequence([self.run.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(seed)  # for dropout
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.images), generator=generator)
        total, began = 0.0, time.perf_counter()
        # Batches of equal size (give or take one) rather than full ones and a short rest.
        for step, rows in enumerate(torch.tensor_split(order, self.batches)):
            value = self._step(epoch, step, rows, generator)
            total += value * len(rows)
            self._tick(epoch + (step + 1) / self.batches, value)
        self.seconds += time.perf_counter() - began
        self.seen += len(order)
        return total / len(order)

    def _step(self, epoch: int, step: int, rows: Tensor, generator: torch.Generator) -> float:
        s = self.settings
        rate = learning_rate(epoch * self.batches + step, s.epochs * self.batches, s)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = self.normalise(shifted(self.images, rows, s.shift_px, s.flip, generator))
        loss = self.loss(self.model(images), images, self.labels[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip_norm or math.inf)
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            where = f"epoch {epoch + 1}, step {step + 1} of {self.batches}, learning rate {rate:.4g}"
            raise StageFailed(
                f"{_section(s)}: training diverged: loss {value}, gradient norm {norm.item():.4g} at {where}; "
                f"both must be finite: lower {_section(s)}.learning_rate or raise its warmup_fraction"
            )
        self.optimizer.step()
        return value

    def _validate(self) -> float:
        d = self.data
        return evaluate(self.model, d.validation_images, d.validation_labels, self.normalise)

    def _tick(self, done: float, loss: float) -> None:
        """Progress within an epoch, now and then."""
        now = time.monotonic()
        if now - self.told >= _TELL_EVERY_S and done % 1:
            self.told = now
            self.run.progress(done, self.settings.epochs, f"loss {loss:.3f}")

    def _say(self, epoch: int) -> None:
        rate = self.seen / self.seconds if self.seconds else 0.0
        text = f"loss {self.history.losses[-1]:.3f}, top-1 {self.history.top1[-1]:.2%}, {rate:.0f} images/s"
        self.run.progress(epoch, self.settings.epochs, text)


def predict_logits(model: nn.Module, images: Images, normalise: Normalise, batch: int = 256) -> npt.NDArray[np.float32]:
    """The logits float32[N, classes] of ``images`` uint8[N, H, W, C], in evaluation mode; the mode is put back."""
    training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            model(normalise(torch.from_numpy(np.array(images[i : i + batch])))) for i in range(0, len(images), batch)
        ]
    model.train(training)
    return torch.cat(parts).numpy()


def evaluate(model: nn.Module, images: Images, labels: Labels, normalise: Normalise, batch: int = 256) -> float:
    """The share of ``images`` whose highest logit is at their label (top-1), 0..1."""
    return float(np.mean(predict_logits(model, images, normalise, batch).argmax(axis=1) == labels))


def _check_batch(images: int, batch_size: int) -> None:
    if batch_size < 2:
        raise ConfigError(f"batch_size is {batch_size}; batch normalisation needs at least 2 images in a batch")
    if images < batch_size:
        raise DataError(
            f"the training split has {images} images and batch_size is {batch_size}; "
            "a batch must not be larger than the split: add images or lower batch_size"
        )


def _optimizer(model: nn.Module, settings: Training) -> SGD:
    """SGD with Nesterov momentum; weight decay on matrices and kernels only, not on biases and normalisation."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    momentum = settings.momentum
    return SGD([g for g in groups if g["params"]], lr=0.0, momentum=momentum, nesterov=momentum > 0)


def _digest(settings: Training, seed: int, images: int) -> str:
    """What makes a run this run and no other, as far as its checkpoints can tell."""
    content = [type(settings).__name__, msgspec.to_builtins(settings), seed, images]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _section(settings: Training) -> str:
    return type(settings).__name__.lower()
