"""How a run goes, for those who watch: speed, loss, accuracy, time left, and TensorBoard logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.nn.training.hooks import Metric
from dlx_deploy.progress import Progress

__all__ = ["Trace"]

_TELL_EVERY_S = 0.5


class Trace:
    """Counts and tells; ``noun`` is what a sample is called, ``logs`` a folder for TensorBoard or ``None``.

    Raises:
        EnvironmentMissing: ``logs`` is given and TensorBoard is not installed.
    """

    def __init__(self, progress: Progress, epochs: int, noun: str, logs: Path | None, metric: Metric) -> None:
        self._progress, self._epochs, self._noun, self._metric = progress, epochs, noun, metric
        self._writer = _writer(logs) if logs else None
        self._seconds = self._waited = 0.0
        self._samples = self._passed = 0
        self._told = time.monotonic()
        self._began, self._before = 0.0, 0

    @property
    def samples_per_s(self) -> float:
        """Of all processes; 0 before the first epoch ended."""
        return self._passed / self._seconds if self._seconds else 0.0

    @property
    def data_share(self) -> float:
        """The share of the training time, 0..1, in which a step waited for its data."""
        return self._waited / self._seconds if self._seconds else 0.0

    def begin(self) -> None:
        """An epoch begins."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """Its training is over."""
        self._seconds += time.perf_counter() - self._began
        self._passed = self._samples

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the making of a batch."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def is_time_to_look(self) -> bool:
        """Whether half a second has passed since somebody was told something."""
        return time.monotonic() - self._told >= _TELL_EVERY_S

    def step(self, done: float, total: Tensor, weight: float, samples: int) -> None:
        """A step is over; ``done`` epochs are, ``total`` over ``weight`` was its mean loss."""
        self._samples += samples
        if self.is_time_to_look() and done % 1:
            self._told = time.monotonic()
            spent = self._seconds + time.perf_counter() - self._began
            loss = float(total) / max(weight, 1e-12)
            text = f"loss {loss:.3f}, {self._samples / spent:.0f} {self._noun}/s"
            self._progress(done, self._epochs, text)
            if self._writer is not None:
                self._writer.add_scalar("loss/step", loss, self._samples)

    def epoch(self, done: int, loss: float, score: float) -> None:
        """An epoch and its validation are over."""
        text = f"loss {loss:.3f}, {self._metric.title} {score:.2%}, {self.samples_per_s:.0f} {self._noun}/s"
        self._progress(done, self._epochs, text)
        if self._writer is not None:
            validation = f"{self._metric.name}/validation"
            for name, value in (("loss/epoch", loss), (validation, score), ("speed", self.samples_per_s)):
                self._writer.add_scalar(name, value, done)

    def close(self) -> None:
        """Write out what is pending."""
        if self._writer is not None:
            self._writer.close()

    def resumed(self, epochs: int) -> None:
        """``epochs`` were done by an earlier process."""
        self._before = epochs


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise EnvironmentMissing(f"--tensorboard needs tensorboard ({e}); {install_command('tensorboard')}") from e
    return SummaryWriter(str(folder))
