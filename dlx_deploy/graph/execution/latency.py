"""Latency of several ONNX models on this machine, timed in turn so that drift hits all of them alike; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.evaluation import input_shapes, run_onnx
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.model import input_dims, load
from dlx_deploy.graph.samples import Arrays, Samples, Shape
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.power.meter import Reading
from dlx_deploy.runtime.power.sensors import Sensors
from dlx_deploy.runtime.timing.models import TimedModel, model_energy, other_answer, time_models
from dlx_deploy.runtime.timing.sampling import Measured, Sampling

__all__ = ["feed_for", "inference_energy", "interleaved_latency"]


def interleaved_latency(
    models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
) -> Measured:
    """Model name → latency at batch 1 over timings in turn, as ``sampling`` says, with native kernels.

    ``sample``: one. A model with a fixed batch is given that many copies of it.
    ``threads``: intra-op threads of each session.

    Raises:
        StageFailed: the last timed run of a model did not give what the model gives where its accuracy is found.
    """
    timed = {name: _timed(path, sample, threads) for name, path in models.items()}
    measured = time_models(timed, sampling, progress)
    for name, one in timed.items():
        _refuse_other(name, one)
    return measured


def inference_energy(path: Path, sample: Samples, threads: int, sensors: Sensors) -> Reading:
    """The energy of one inference of the model at ``path`` beyond idle, on this CPU: as a package's ``bench`` has it.

    Raises:
        StageFailed: as ``interleaved_latency``.
    """
    timed = _timed(path, sample, threads)
    reading = model_energy(timed, sensors)
    if reading.energy is not None:
        _refuse_other(path.name, timed)
    return reading


def feed_for(path: Path, sample: Samples) -> Arrays:
    """What the model at ``path`` is fed of one ``sample``: as many copies as its batch has."""
    return _feed(sample, input_dims(load(path)))


def _feed(sample: Samples, shapes: Mapping[str, Shape]) -> Arrays:
    size = next(iter(shapes.values()))[0]
    return sample.fitted(shapes).repeated(size if isinstance(size, int) else 1).feed()


def _timed(path: Path, sample: Samples, threads: int) -> TimedModel:
    """A session that is held against the outputs by which ``evaluate`` judges; those of saturating kernels are not
    known."""
    model = path.read_bytes()

    def wanted() -> Arrays:
        return {} if host_saturates(model) else run_onnx(model, sample, exact_qdq=False)

    return TimedModel(model, threads, lambda session: _feed(sample, input_shapes(session)), wanted)


def _refuse_other(name: str, timed: TimedModel) -> None:
    if why := other_answer(name, timed):
        raise StageFailed(why)
