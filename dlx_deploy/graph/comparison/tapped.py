"""What tensors inside graphs are on real samples, some rows at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.evaluation import input_shapes
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.execution.memory import rows_within
from dlx_deploy.graph.model import TensorInfo, batch_size, infer, load, to_bytes
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.runtime.backends.session import InferenceSession, open_session, session_errors

__all__ = ["HELD_BYTES", "Tap", "parts_of", "row_tensors"]

HELD_BYTES = 128 << 20
"""What the tensors that are looked at take together."""
LARGEST_BATCH = 32


def row_tensors(model: ModelProto) -> dict[str, TensorInfo]:
    """The tensors of ``model`` with a row for each sample, and what one row is.

    Raises:
        StageFailed: ONNX's shape inference refuses the graph.
    """
    fixed = batch_size(model)
    if fixed == 1:
        known = infer(model, batch=1)
        return {name: info for name, info in known.items() if info.shape and info.shape[0] == 1}
    many = fixed or 2
    more = fixed or 3  # a dimension that is the batch grows with it; of a fixed batch nothing tells them apart
    one = infer(model, batch=many)
    two = one if fixed else infer(model, batch=more)
    return {
        name: TensorInfo(info.dtype, (1, *info.shape[1:]))
        for name, info in one.items()
        if info.shape and info.shape[0] == many and name in two and two[name].shape[:1] == (more,)
    }


def parts_of(samples: Samples, row_bytes: int, fixed: int | None) -> Iterator[tuple[Samples, int]]:
    """``samples``, as many at a time as ``HELD_BYTES`` has room for where a row takes ``row_bytes``, or ``fixed``; and
    how many of the rows are real: the last ones of a fixed batch are copies."""
    size = fixed or rows_within(row_bytes, LARGEST_BATCH, HELD_BYTES)
    left = len(samples)
    for part in samples.batches(size, fill=fixed is not None):
        yield part, min(size, left)
        left -= size


class Tap:
    """A graph that gives ``tensors`` of its inside; ``exact``: see ``execution.evaluation.run_in_batches``."""

    def __init__(self, model: ModelProto, tensors: Sequence[str], exact: bool) -> None:
        opened = load(model)
        known = {value.name: value for value in opened.graph.output}
        outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in tensors]
        del opened.graph.output[:]
        opened.graph.output.extend(outputs)
        data = to_bytes(opened)
        self._names = list(tensors)
        self._session: InferenceSession = open_session(data, exact or host_saturates(data))
        self.shapes = input_shapes(self._session)

    def run(self, feeds: Mapping[str, object]) -> Arrays:
        """The tensors by name.

        Raises:
            StageFailed: ONNX Runtime cannot run the graph on them.
        """
        try:
            values = self._session.run(self._names, feeds)  # type: ignore[arg-type]  # arrays, of whatever type
        except session_errors() as e:
            raise StageFailed(f"ONNX Runtime cannot run the graph to look inside it: {e}") from e
        return dict(zip(self._names, values, strict=True))
