"""Latency of several ONNX models on this machine, timed in turn so that drift hits all of them alike; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dlx_deploy.graph.execution.evaluation import input_shapes
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.timing.sampling import Measured, Sampling, measure
from dlx_deploy.runtime.timing.state import Watch

__all__ = ["interleaved_latency"]


def interleaved_latency(
    models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
) -> Measured:
    """Model name → latency at batch 1 over timings in turn, as ``sampling`` says, with native kernels.

    ``sample``: one. A model with a fixed batch is given that many copies of it.
    ``threads``: intra-op threads of each session.
    """
    runners = {name: _runner(path, sample, threads) for name, path in models.items()}
    return measure(runners, sampling, progress, Watch())


def _runner(path: Path, sample: Samples, threads: int) -> Callable[[], object]:
    session = open_session(path.read_bytes(), exact_qdq=False, threads=threads)
    shapes = input_shapes(session)
    size = next(iter(shapes.values()))[0]
    feed = sample.fitted(shapes).repeated(size if isinstance(size, int) else 1).feed()
    return lambda: session.run(None, feed)
