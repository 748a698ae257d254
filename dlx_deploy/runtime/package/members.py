"""The arrays of a package: which member holds each, and how they are read and held against ``package.json``."""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

from ..records import record
from ..tasks.arrays import Arrays, Tensor, count_of
from ..tasks.task import Task
from ..untyped import Array
from .fields import Fields, npy_bytes

__all__ = ["DIGEST", "LAYOUT", "ArrayLayout", "array_members", "read_golden", "read_reference"]

DIGEST = "digest"
"""The column of the reference table that every task has: uint64[m], what finds a sample's row."""


@record
class ArrayLayout:
    """Where a schema keeps its arrays: the member of an input or output, that of a column, and how columns are read."""

    golden: Callable[[str], str]
    column: Callable[[str], str]
    read_columns: Callable[[Fields, Tuple[Tensor, ...]], Dict[str, Array]]


def array_members(golden: Arrays, reference: Arrays) -> Dict[str, bytes]:
    """The members that hold these arrays."""
    files = {LAYOUT.golden(name): npy_bytes(array) for name, array in golden.items()}
    files.update({LAYOUT.column(name): npy_bytes(array) for name, array in reference.items()})
    return files


def read_golden(field: Fields, layout: ArrayLayout, task: Task) -> Tuple[Arrays, Arrays]:
    """The golden inputs and outputs by name, as many of each as ``golden.count`` says.

    Raises:
        PackageError: one is missing, or of another dtype or shape, or holds values that mean nothing; there is none.
    """
    first, *others = task.inputs.tensors
    inputs = {first.name: field.array(layout.golden(first.name), first)}
    count = len(inputs[first.name])
    field.exactly("golden.count", count)
    if not count:
        raise field.wrong("golden.count", 0, "must be at least 1, or the self-test would test nothing")
    inputs.update({tensor.name: field.array(layout.golden(tensor.name), tensor, count) for tensor in others})
    tensors = task.outputs.tensors
    outputs = {tensor.name: field.array(layout.golden(tensor.name), tensor, count) for tensor in tensors}
    _refuse(field, layout.golden, task.inputs.fault(inputs))
    _refuse(field, layout.golden, task.outputs.fault(outputs))
    return inputs, outputs


def read_reference(field: Fields, layout: ArrayLayout, task: Task) -> Arrays:
    """The reference table by column: ``digest`` and those of the task's outputs, all of one length.

    Raises:
        PackageError: as ``read_golden``.
    """
    columns = layout.read_columns(field, task.outputs.columns)
    _refuse(field, layout.column, task.outputs.column_fault(columns))
    return columns


def _read_columns(field: Fields, tensors: Tuple[Tensor, ...]) -> Dict[str, Array]:
    columns: Dict[str, Array] = {}
    for tensor in (Tensor(DIGEST, "uint64", ()), *tensors):
        columns[tensor.name] = field.array(LAYOUT.column(tensor.name), tensor, count_of(columns) if columns else None)
    return columns


def _refuse(field: Fields, member: Callable[[str], str], fault: Optional[Tuple[str, str]]) -> None:
    if fault is not None:
        name, why = fault
        raise field.damaged(member(name), why)


LAYOUT = ArrayLayout("golden/{}.npy".format, "reference/{}.npy".format, _read_columns)
"""The present schema's: a member for each array."""
