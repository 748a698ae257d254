"""Latency of several ONNX models on this machine, timed in turn so that drift hits all of them alike; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.evaluation import input_shapes, run_onnx
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.power.meter import Meter, Reading
from dlx_deploy.runtime.power.sensors import Sensors
from dlx_deploy.runtime.timing.latency import CONFIDENCE
from dlx_deploy.runtime.timing.sampling import Measured, Sampling, measure
from dlx_deploy.runtime.timing.state import Watch
from dlx_deploy.runtime.timing.sustained import sustain
from dlx_deploy.runtime.untyped import Array
from dlx_deploy.runtime.words import line

__all__ = ["inference_energy", "interleaved_latency"]

_NEAR = 0.01
"""Of the largest value, or of all whole numbers: kernels may round otherwise, what is nonsense is further away."""


def interleaved_latency(
    models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
) -> Measured:
    """Model name → latency at batch 1 over timings in turn, as ``sampling`` says, with native kernels.

    ``sample``: one. A model with a fixed batch is given that many copies of it.
    ``threads``: intra-op threads of each session.

    Raises:
        StageFailed: the last timed run of a model did not give what the model gives where its accuracy is found.
    """
    timed = {name: _Timed(path, sample, threads) for name, path in models.items()}
    measured = measure({name: one.run for name, one in timed.items()}, sampling, progress, Watch())
    for name, one in timed.items():
        one.check(name, sample)
    return measured


def inference_energy(path: Path, sample: Samples, threads: int, sensors: Sensors) -> Reading:
    """The energy of one inference of the model at ``path`` beyond idle, on this CPU: as a package's ``bench`` has it.

    Raises:
        StageFailed: as ``interleaved_latency``.
    """
    timed, meter = _Timed(path, sample, threads), Meter(sensors, "cpu")
    if meter.is_useful:
        sustain(timed.run, timed.batch, meter)
        timed.check(path.name, sample)
    return meter.result(CONFIDENCE)


class _Timed:
    """A session with its input, and what it gave last."""

    def __init__(self, path: Path, sample: Samples, threads: int) -> None:
        self._model = path.read_bytes()
        self._session = open_session(self._model, exact_qdq=False, threads=threads)
        shapes = input_shapes(self._session)
        size = next(iter(shapes.values()))[0]
        self.batch = size if isinstance(size, int) else 1
        self._feed = sample.fitted(shapes).repeated(self.batch).feed()
        self._last: Sequence[Array] = ()

    def run(self) -> None:
        self._last = self._session.run(None, self._feed)

    def check(self, name: str, sample: Samples) -> None:
        """Refuses other outputs than those by which ``evaluate`` judges; of saturating kernels these are not known."""
        if host_saturates(self._model):
            return
        names = [output.name for output in self._session.get_outputs()]
        wanted = run_onnx(self._model, sample, exact_qdq=False)
        for output, values in zip(names, self._last, strict=True):
            if not _near(values[:1], wanted[output]):
                raise StageFailed(
                    f"the timed run of {line(name)} gave another {line(output)} than the run that its accuracy is "
                    "found by; its latency says nothing: build again, or with another onnxruntime"
                )


def _near(values: Array, wanted: Array) -> bool:
    """Whether outputs of one sample, each of any shape, are the same but for rounding."""
    if values.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return float(np.mean(values != wanted)) <= _NEAR if wanted.size else True
    room = _NEAR * float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
    return bool(np.allclose(values, wanted, rtol=0.0, atol=room + 1e-6, equal_nan=True))
