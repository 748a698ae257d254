"""Sessions of ONNX models timed in turn, with what they gave last: the same arithmetic here and on a board."""

from __future__ import annotations

from typing import Callable, List, Mapping, Optional, Sequence

import numpy as np

from ..backends.session import InferenceSession, open_session
from ..power.meter import Meter, Reading
from ..power.sensors import Sensors
from ..telling import Tell, silent
from ..untyped import Array
from ..words import line
from .latency import CONFIDENCE
from .sampling import Measured, Sampling, measure
from .state import Watch
from .sustained import sustain

__all__ = ["TimedModel", "model_energy", "other_answer", "time_models"]

NEAR = 0.01
"""Of the largest value, or of all whole numbers: kernels may round otherwise, what is nonsense is further away."""
Answers = Callable[[], Mapping[str, Array]]


class TimedModel:
    """A session of an ONNX model on this CPU's native kernels, what it is fed, and what it gave last.

    ``feed_of``: input name → array of the session's batch size, for a session. ``wanted``: what must come out for the
    first row, by output; it is asked after the timing. ``None``: what a session of its own gives.
    """

    def __init__(
        self,
        model: bytes,
        threads: int,
        feed_of: Callable[[InferenceSession], Mapping[str, Array]],
        wanted: Optional[Answers] = None,
    ) -> None:
        self._model, self._threads = model, threads
        self._session = open_session(model, exact_qdq=False, threads=threads)
        self._feed = dict(feed_of(self._session))
        self._wanted = wanted or self._again
        self._last: Sequence[Array] = ()

    @property
    def batch(self) -> int:
        """Samples in a run."""
        return len(next(iter(self._feed.values())))

    def run(self) -> None:
        """Once, as it is timed."""
        self._last = self._session.run(None, self._feed)

    def other_output(self) -> str:
        """The output of which the last timed run gave something else than is wanted; empty if there is none."""
        wanted = self._wanted()
        pairs = zip((output.name for output in self._session.get_outputs()), self._last)
        return next((name for name, values in pairs if name in wanted and not _near(values[:1], wanted[name])), "")

    def _again(self) -> Mapping[str, Array]:
        session = open_session(self._model, exact_qdq=False, threads=self._threads)
        names: List[str] = [output.name for output in session.get_outputs()]
        return {name: values[:1] for name, values in zip(names, session.run(None, self._feed))}


def time_models(models: Mapping[str, TimedModel], sampling: Sampling, tell: Tell = silent) -> Measured:
    """The latency of each over timings in turn, and what the machine did meanwhile."""
    return measure({name: one.run for name, one in models.items()}, sampling, tell, Watch())


def model_energy(model: TimedModel, sensors: Sensors) -> Reading:
    """The energy of one inference beyond idle, run without a pause, by sensors of this CPU; or why it is unknown."""
    meter = Meter(sensors, "cpu")
    if meter.is_useful:
        sustain(model.run, model.batch, meter)
    return meter.result(CONFIDENCE)


def other_answer(name: str, model: TimedModel) -> str:
    """Why the timings of the model ``name`` say nothing, if so: its last run did not give what it should."""
    output = model.other_output()
    if not output:
        return ""
    return (
        f"the timed run of {line(name)} gave another {line(output)} than the run that its accuracy is "
        "found by; its latency says nothing: build again, or with another onnxruntime"
    )


def _near(values: Array, wanted: Array) -> bool:
    """Whether outputs of one sample, each of any shape, are the same but for rounding."""
    if values.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return float(np.mean(values != wanted)) <= NEAR if wanted.size else True
    room = NEAR * float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
    return bool(np.allclose(values, wanted, rtol=0.0, atol=room + 1e-6, equal_nan=True))
