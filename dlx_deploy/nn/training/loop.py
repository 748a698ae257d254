"""One training loop for teacher, student and fine-tune: same seed and threads, same bits, resumed or not.

Accelerate gives it devices, processes, mixed precision and loss scaling; schedules, batches and state are functions of
(seed, epoch, step), so that a run goes on after a kill as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from dlx_deploy.config import Training
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.training import checkpoints
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.compute import new_accelerator
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import evaluate, total
from dlx_deploy.nn.training.learner import Learner
from dlx_deploy.nn.training.losses import LossFn
from dlx_deploy.nn.training.schedules import check_schedule, learning_rate
from dlx_deploy.nn.training.trace import Trace
from dlx_deploy.nn.training.transfer import Transfer
from dlx_deploy.progress import Progress, silent

__all__ = ["RunContext", "TrainReport", "train"]

_PLAIN = Transfer()


@dataclass(frozen=True)
class RunContext:
    """Where a run keeps its checkpoints and TensorBoard logs (``None``: nowhere), its seed, and who watches.

    ``sharded``: the parameters are cut over the processes instead of copied to each (FSDP2).
    """

    checkpoints: Path | None = None
    seed: int = 0
    progress: Progress = silent
    transfer: Transfer = _PLAIN
    logs: Path | None = None
    sharded: bool = False


@dataclass(frozen=True)
class TrainReport:
    """How a run went. ``losses`` and ``scores`` (validation, by the metric) are per epoch.

    ``samples_per_s`` and ``data_share`` (of the time, 0..1, that steps waited for their data) are of this process.
    ``kept_epoch``: the epoch whose weights were kept, counted from 1.
    """

    epochs: int
    resumed_from: int = 0
    samples_per_s: float = 0.0
    data_share: float = 0.0
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    initial_score: float = 0.0
    kept_epoch: int = 0

    @property
    def last_score(self) -> float:
        """Validation score of the weights that were kept."""
        return self.scores[self.kept_epoch - 1] if self.scores else self.initial_score

    @property
    def best_score(self) -> float:
        """The highest validation score seen after any epoch."""
        return max(self.scores, default=self.initial_score)


def train(
    model: nn.Module, data: TrainData, settings: Training, loss: LossFn, run: RunContext, hooks: Hooks
) -> TrainReport:
    """Train ``model`` in place for ``settings.epochs`` epochs, from the newest checkpoint of this run if there is one.

    After every epoch the validation score is taken and a checkpoint written. The final weights are those after the
    last epoch (with ``patience``: of the best one; with ``ema_decay``: the averaged ones), on the CPU, and the same
    bits whether or not the run was interrupted (on a CPU, at the same number of threads and processes).

    Raises:
        DataError: fewer training images than one batch.
        ConfigError: a batch of one image, or a schedule that does not fit into the epochs.
        EnvironmentMissing: the device has no such precision.
        StageFailed: the loss or its gradient is not finite.
        StoreError: a checkpoint cannot be written.
    """
    check_schedule(settings)
    _check_sharding(run)
    if not settings.epochs:
        score = evaluate(model.eval(), data.validation_inputs, data.validation_targets, data.feed, hooks.metric)
        return TrainReport(epochs=0, initial_score=score)
    return _Run(hooks.prepare(model), data, settings, loss, run, hooks).to_the_end()


class _Run:
    """The state of one run between its epochs."""

    def __init__(
        self, model: nn.Module, data: TrainData, settings: Training, loss: LossFn, run: RunContext, hooks: Hooks
    ) -> None:
        self.data, self.settings, self.loss, self.run, self.hooks = data, settings, loss, run, hooks
        self.accelerator = new_accelerator(settings)
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.source = data.feed.source(data, settings, self.accelerator.device)
        self.learner = Learner(model, settings, self.accelerator, run.transfer, run.sharded)
        logs = run.logs if self.rank == 0 else None
        self.trace = Trace(run.progress, settings.epochs, self.source.noun, logs, hooks.metric)
        self.losses: list[float] = []
        self.scores: list[float] = []
        # Token batches differ in number from epoch to epoch; the schedule counts those of the first.
        self.steps_per_epoch = math.ceil(len(self.source.plan(self._seed(0), self.processes)) / settings.accumulate)

    def to_the_end(self) -> TrainReport:
        digest = _digest(self.settings, self.run, len(self.data.inputs), self.hooks.metric.name)
        start = self._resume(digest)
        for epoch in range(start, self.settings.epochs):
            if self._is_patient_no_more():
                break
            self.losses.append(self._epoch(epoch))
            self.scores.append(self._validate())
            self.learner.keep_best(self.scores)
            self._checkpoint(epoch + 1, digest)
            self.trace.epoch(epoch + 1, self.losses[-1], self.scores[-1])
        self.trace.close()
        kept = self.learner.finish(self.scores)
        return TrainReport(
            epochs=len(self.losses),
            resumed_from=start,
            samples_per_s=self.trace.samples_per_s,
            data_share=self.trace.data_share,
            losses=tuple(self.losses),
            scores=tuple(self.scores),
            kept_epoch=kept,
        )

    def _resume(self, digest: str) -> int:
        if self.run.checkpoints is None:
            return 0
        self.accelerator.wait_for_everyone()
        start, tensors, history = checkpoints.latest(
            self.run.checkpoints, digest, self.settings.epochs, self.learner.check
        )
        if start:
            self.losses, self.scores = history["losses"], history["scores"]
            self.learner.restore(tensors, history["scaler"])
            self.trace.resumed(start)
        return start

    def _checkpoint(self, epoch: int, digest: str) -> None:
        if self.run.checkpoints is None:
            return
        tensors = self.learner.state()  # every process takes part where parameters are sharded
        if self.rank == 0:
            history = {"losses": self.losses, "scores": self.scores, "scaler": self.learner.scaler_state()}
            checkpoints.write(self.run.checkpoints, epoch, digest, tensors, history)
        self.accelerator.wait_for_everyone()

    def _is_patient_no_more(self) -> bool:
        """Whether the validation score has not risen for ``patience`` epochs (0: never)."""
        patience = self.settings.patience
        return bool(patience and self.scores) and len(self.scores) - (int(np.argmax(self.scores)) + 1) >= patience

    def _epoch(self, epoch: int) -> float:
        """Train for one epoch; the mean loss per sample. All randomness comes from (seed, epoch)."""
        self.learner.begin_epoch(epoch)
        seed = self._seed(epoch)
        torch.manual_seed(seed + self.rank)  # for dropout and what torchvision draws
        generator = torch.Generator().manual_seed(seed)
        plan, size = self.source.plan(seed, self.processes), self.settings.accumulate
        windows = [plan[i : i + size] for i in range(0, len(plan), size)]
        total, weight = torch.zeros((), dtype=torch.float64, device=self.accelerator.device), 0.0
        self.trace.begin()
        for step, window in enumerate(windows):
            value, counted = self._step(epoch, step, window, generator)
            total += value
            weight += counted
            self.trace.step(epoch + (step + 1) / len(windows), value, counted, _samples(window))
        self.trace.end()
        sums: Any = self.accelerator.reduce(
            torch.stack([total, torch.tensor(weight, device=total.device, dtype=total.dtype)])
        )
        mean = float(sums[0] / sums[1])
        if not math.isfinite(mean):  # a GPU is not asked after every step
            raise self._diverged(f"loss {mean:.4g} in epoch {epoch + 1}")
        return mean

    def _step(
        self, epoch: int, step: int, window: Sequence[Sequence[npt.NDArray[np.int64]]], generator: torch.Generator
    ) -> tuple[torch.Tensor, float]:
        """One optimizer step over a window of batches; this process's summed loss and weight.

        The gradient is that of the mean over every sample of the window, whatever the sizes of its batches and of the
        processes' shares.
        """
        done, planned = epoch * self.steps_per_epoch + step, self.settings.epochs * self.steps_per_epoch
        at = min(done, planned - 1)
        rate = learning_rate(at, planned, self.settings)
        whole = sum(self.source.weight(rows) for parts in window for rows in parts)
        total, counted = None, 0.0
        for position, parts in enumerate(window):
            with self.trace.waiting():
                batch = self.source.batch(parts, self.rank, generator)
            ends = position == 0, position + 1 == len(window)
            batch = replace(batch, done=at / planned)
            summed = self.learner.backward(batch, self.loss, self.processes / whole, *ends)
            total = summed if total is None else total + summed
            counted += self.source.weight(parts[self.rank])
        norm = self.learner.update(rate)
        self.hooks.after_update(self.learner.trained, done + 1)
        self.learner.average()
        assert total is not None
        self._refuse_divergence(total, counted, norm, f"epoch {epoch + 1}, step {step + 1}", rate)
        return total, counted

    def _refuse_divergence(
        self, total: torch.Tensor, counted: float, norm: torch.Tensor | None, where: str, rate: float
    ) -> None:
        """``norm`` is ``None`` under loss scaling, which passes over steps whose gradients overflow."""
        if self.accelerator.device.type != "cpu" and not self.trace.is_time_to_look():
            return  # reading a value makes the CPU wait for the GPU
        value, size = float(total) / max(counted, 1e-12), 0.0 if norm is None else float(norm)
        if not (math.isfinite(value) and math.isfinite(size)):
            raise self._diverged(f"loss {value:.4g}, gradient norm {size:.4g} at {where}, learning rate {rate:.4g}")

    def _diverged(self, seen: str) -> StageFailed:
        section = type(self.settings).__name__.lower()
        return StageFailed(
            f"{section}: training diverged: {seen}; both must be finite: lower {section}.learning_rate or raise its "
            "warmup_fraction"
        )

    def _validate(self) -> float:
        """The validation score, each process on its share; one without a share takes part with what counts nothing."""
        d, metric = self.data, self.hooks.metric
        mine = slice(self.rank, None, self.processes) if not self.run.sharded else slice(None)
        count = len(d.validation_targets[mine])
        mine = mine if count else slice(0, 1)
        totals = total(self.learner.judged(), d.validation_inputs[mine], d.validation_targets[mine], d.feed, metric)
        own = np.append((totals if count else np.zeros_like(totals)).reshape(-1), count)
        sums: Any = self.accelerator.reduce(torch.from_numpy(own).to(self.accelerator.device))
        everywhere = sums.cpu().numpy()
        score = metric.score(everywhere[:-1].reshape(totals.shape), float(everywhere[-1]))
        if not math.isfinite(score):  # it would be the best one for ever
            raise StageFailed(f"the validation {metric.title} is {score}; rule: a finite number, whatever the answers")
        return score

    def _seed(self, epoch: int) -> int:
        return int(np.random.SeedSequence([self.run.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _check_sharding(run: RunContext) -> None:
    several = distributed.is_initialized() and distributed.get_world_size() > 1
    if run.sharded and not several:
        raise ConfigError(
            "teacher.sharding is 'shard', and there is one process; start several with --processes, torchrun or "
            "accelerate launch, or set 'replicate'"
        )
    if run.sharded and run.transfer != _PLAIN:
        raise ConfigError("teacher.sharding is 'shard' and layers are frozen or have rates of their own; choose one")


def _samples(window: Sequence[Sequence[npt.NDArray[np.int64]]]) -> int:
    return sum(len(rows) for parts in window for rows in parts)


def _digest(settings: Training, run: RunContext, samples: int, metric: str) -> str:
    """What makes a run this run and no other, as far as its checkpoints can tell."""
    content = [type(settings).__name__, msgspec.to_builtins(settings), asdict(run.transfer), run.seed, samples, metric]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
