"""An inference: the request's tensors read by the task, run, and its outputs as the protocol has them."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

from ..tasks.arrays import Arrays, count_of, joined, rows_of
from ..tasks.task import PredictOptions
from ..words import shortened
from .asked import Asked, Wanted
from .messages import Body, Refused, Response, encoded, json_response
from .models import Served
from .reading import Read, read_asked
from .tensors import bytes_tensor, tensor_json

__all__ = ["infer", "predict"]

WAIT_S = 30.0
UNREADABLE = "unreadable"
OCTETS = "application/octet-stream"


def infer(served: Served, asked: Asked) -> Tuple[Response, int]:
    """The outputs that are asked for, as JSON or bytes, and about how many samples they are.

    Raises:
        Refused: what is given or wanted is none of the model's. Busy, PackageError: as ``Queue.submit``.
        BackendMissing: as ``Inputs.read``.
    """
    wanted = _wanted(served, asked)
    with served.watch.counters.timed("read"):
        read = read_asked(served, asked, keep=False)
    outputs = _run(served, read, asked)
    with served.watch.counters.timed("decode"):
        return _written(served, asked, read, outputs, wanted), len(read.rows)


def _written(served: Served, asked: Asked, read: Read, outputs: Arrays, wanted: Sequence[Wanted]) -> Response:
    """``outputs`` as the answer to a request."""
    entries: List[Dict[str, object]] = []
    parts: List[Body] = []
    for one in wanted:
        entry, behind = tensor_json(one.name, outputs[one.name], asked.binary if one.binary is None else one.binary)
        entries.append(entry)
        parts.extend(behind)
    if asked.report:
        told = [read.faults.get(i, "") for i in range(read.count)]
        entry, behind = bytes_tensor(UNREADABLE, told, asked.binary)
        entries.append(entry)
        parts.extend(behind)
    value = {**_named(served, asked), "outputs": entries}
    if not parts:
        return json_response(value)
    body = encoded(value)
    return Response(200, (body, *parts), OCTETS, (("Inference-Header-Content-Length", str(len(body))),))


def predict(served: Served, asked: Asked, read: Read) -> Tuple[Response, int]:
    """Each sample's answer in the task's words, as ``predict --json`` prints it, or why it was not read; how many are.

    Raises:
        Busy, PackageError: as ``Queue.submit``.
    """
    outputs, task = _run(served, read, asked), served.predictor.package.task
    answers: List[Dict[str, object]] = [{"error": read.faults.get(i, "")} for i in range(read.count)]
    with served.watch.counters.timed("decode"):
        for i, number in enumerate(read.rows):
            here = slice(i, i + 1)
            sample = read.samples[i] if read.samples else rows_of(read.feeds, here)
            decoded = served.predictor.answers(rows_of(outputs, here), sample)
            row = task.outputs.rows(decoded, [""], PredictOptions(asked.top, drawn=asked.drawn))[0]
            answers[number] = dict(row.data)
        return json_response({**_named(served, asked), "predictions": answers}), len(read.rows)


def _wanted(served: Served, asked: Asked) -> List[Wanted]:
    own = served.outputs
    if asked.outputs is None:
        return [Wanted(name, None) for name in own]
    for one in asked.outputs:
        if one.name not in own:
            raise Refused(400, f"output {shortened(one.name)} is none of the model's; it has {', '.join(own)}")
    return list(asked.outputs)


def _run(served: Served, read: Read, asked: Asked) -> Arrays:
    """The model's outputs, through its queue; many samples a block at a time."""
    if not read.rows:
        return read.no_outputs(served)
    size, wait_s = served.block, min(WAIT_S, asked.timeout_s or WAIT_S)
    count = count_of(read.feeds)
    if count <= size:
        return served.queue.submit(read.feeds, wait_s)
    until = served.clock() + wait_s
    blocks = [rows_of(read.feeds, slice(i, i + size)) for i in range(0, count, size)]
    return joined([served.queue.submit(block, max(0.0, until - served.clock())) for block in blocks])


def _named(served: Served, asked: Asked) -> Dict[str, object]:
    """What an answer begins with."""
    own: Dict[str, object] = {"model_name": served.name, "model_version": served.version}
    return own if asked.id is None else {**own, "id": asked.id}
