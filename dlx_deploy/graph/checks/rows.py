"""Whether each row of a batch gets the answer that it would get alone, by ONNX Runtime; no torch.

A device answers one row at a time or several, in any order and number; what was proven on batches must hold for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.execution.memory import peak_row_bytes, rows_within
from dlx_deploy.graph.model import input_dims, load, to_bytes
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.untyped import Array

__all__ = [
    "BLAMED",
    "MOST",
    "ODD",
    "Dependence",
    "dependence",
    "first_dependent_node",
    "own_rows_differ",
    "refuse_dependent_rows",
    "unlike",
]

ALONE = 8
"""So many rows are also answered one by one."""
ODD = 7
"""The batch of those in another order: a size that nothing was traced with."""
MOST = 3 * ODD
"""More rows would say no more, and large networks take their time."""
BLAMED = 3
"""The batch in which the layer to blame is looked for: every tensor of the network is held at once."""

Run = Callable[[Samples, int], Arrays]
"""Samples and a batch size to their outputs by name."""


@dataclass(frozen=True)
class Dependence:
    """The row whose answer differs most from the one that it got among the others, in which output, and how asked."""

    row: int
    how: str
    relative: float
    output: str

    def __str__(self) -> str:
        size = f"{self.relative:.2e} of the largest of the {self.output}"
        return f"row {self.row} gets other {self.output} {self.how} ({size})"


def dependence(
    run: Run, rows: Samples, expected: Arrays, tolerance: float, fixed: int | None = None
) -> Dependence | None:
    """How an answer depends on more than its row, or ``None``.

    ``expected``: output name → [N, ...], what ``run`` gave for ``rows`` as they are; they are run again one by one,
    then in another order, an odd number at a time. A model of ``fixed`` batch gets a row alone as so many copies. The
    values of an output agree within ``tolerance`` of its largest.
    """
    rows = rows[:MOST]
    order = np.random.default_rng(0).permutation(len(rows))
    back = np.argsort(order)
    shuffled = {name: values[back] for name, values in run(rows[order], fixed or ODD).items()}
    few = rows[: max(2, ALONE // (fixed or 1))]
    alone = run(few.repeated(fixed), fixed) if fixed else run(few, 1)
    alone = {name: values[:: fixed or 1] for name, values in alone.items()}
    for how, got in (("alone", alone), ("in another order", shuffled)):
        for name, values in got.items():
            if apart := _furthest(values, expected[name][:MOST], tolerance):
                return Dependence(row=apart[0], how=how, relative=apart[1], output=name)
    return None


def unlike(samples: Samples) -> Samples:
    """``samples``, of every three images of uint8[N, H, W, C] one darker and one of less contrast; the rest as it is.

    What all images of a data set have in common (a white background, so the same largest value) hides what a network
    computes over a batch from it, until a device sees other images.
    """
    return Samples({name: _unlike(values) for name, values in samples.arrays.items()}, samples.padding)


def _rows_to_ask(model: ModelProto) -> int:
    """How many rows are answered together to see whether one depends on others: ``ODD`` of large ones, to ``MOST``."""
    return max(ODD, rows_within(peak_row_bytes(model), MOST))


def _unlike(rows: Array) -> Array:
    if rows.dtype != np.uint8 or rows.ndim != 4:
        return rows
    changed = rows.copy()
    changed[1::3] //= 2
    changed[2::3] = 64 + changed[2::3] // 2  # neither black nor white: either may be the largest value
    return changed


def refuse_dependent_rows(path: Path | bytes, rows: Samples, exact_qdq: bool, tolerance: float) -> None:
    """Nothing, once an ONNX model has answered ``rows`` alike alone, in a batch, and in another order.

    Raises:
        StageFailed: it has not; names the row and the first node whose output depends on the batch.
    """
    source = path.read_bytes() if isinstance(path, Path) else path
    model = load(source)
    size = next(iter(input_dims(model).values()))[0]

    def run(part: Samples, batch: int) -> Arrays:
        return run_onnx(source, part, exact_qdq, batch, shrink=False)

    name = path.name if isinstance(path, Path) else "the model"
    rows = rows[: _rows_to_ask(model)]
    depends = dependence(run, rows, run(rows, len(rows)), tolerance, size)
    if depends:
        node = first_dependent_node(model, rows[:BLAMED], exact_qdq, tolerance)
        raise StageFailed(
            f"{name}: answers depend on the batch: {depends}; {node or 'no single node is to blame'}; rule: a row's "
            "answer is its own; compute nothing across the batch axis, nor from the batch size of the trace"
        )


def first_dependent_node(model: ModelProto, rows: Samples, exact_qdq: bool, tolerance: float) -> str:
    """The first node, in graph order, one of whose outputs depends on a row's neighbours; empty where none is found."""
    model = load(model)
    shapes = input_dims(model)
    if next(iter(shapes.values()))[0]:
        return ""  # no row can be had alone
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = open_session(to_bytes(model), exact_qdq, threads=1)
    whole = rows.fitted(shapes)
    together = dict(zip(names, session.run(names, whole.feed()), strict=True))
    alone = [dict(zip(names, session.run(names, one.feed()), strict=True)) for one in whole.batches(1, fill=False)]
    for node in model.graph.node:
        for name in node.output:
            if name and own_rows_differ(together[name], [each[name] for each in alone], tolerance):
                return f"the first node whose output does is {node.name!r} ({node.op_type})"
    return ""


def own_rows_differ(together: Array, alone: list[Array], tolerance: float) -> bool:
    """Whether a tensor of a batch is not made of the tensors that its rows give ``alone``.

    The batch axis is the one that grows with the batch, and may be merged with another. Where none does, the tensor is
    the same for every row, or depends on all of them.
    """
    count = len(alone)
    for i, single in enumerate(alone):
        if single.ndim != together.ndim:
            return True
        grown = [axis for axis in range(single.ndim) if single.shape[axis] != together.shape[axis]]
        if not grown:
            if not _close(together, single, tolerance):
                return True
            continue
        axis, size = grown[0], single.shape[grown[0]]
        if len(grown) > 1 or together.shape[axis] != count * size:
            continue  # a layout of its own: what is made of it will tell
        block = together.take(range(i * size, (i + 1) * size), axis)
        strided = together.take(range(i, count * size, count), axis)
        if not _close(block, single, tolerance) and not _close(strided, single, tolerance):
            return True
    return False


def _close(a: Array, b: Array, tolerance: float) -> bool:
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    difference = np.abs(a.astype(np.float64) - b)
    return bool(np.isnan(difference).any() or difference.max(initial=0) <= tolerance * np.abs(a).max(initial=1e-12))


def _furthest(got: Array, expected: Array, tolerance: float) -> tuple[int, float] | None:
    """The row that is furthest off, and by how much of the largest value, if that is beyond ``tolerance``."""
    apart = np.abs(got.astype(np.float64) - expected[: len(got)]).reshape(len(got), -1)
    difference = np.nan_to_num(apart.max(axis=1), nan=np.inf)
    row = int(difference.argmax())
    relative = float(difference[row]) / max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return None if relative <= tolerance else (row, relative)  # NaN is not close
