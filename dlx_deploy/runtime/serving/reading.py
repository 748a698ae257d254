"""What a request gives as what the model reads: tensors as they are, image files and texts by the task."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Callable, ContextManager, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import replace
from ..tasks.arrays import BLOCK_BYTES, Arrays, Tensor, count_of, joined
from ..untyped import Array
from ..words import shortened
from .asked import Asked
from .feeds import Join
from .messages import Refused
from .models import Served
from .tensors import BYTES, InputTensor, datatype_of

__all__ = ["Read", "holding", "holding_asked", "read_asked", "read_samples"]

MAX_ROWS = 4_096
MAX_KEPT = 16  # pictures whose own size the answer needs: each may be a hundred megabytes


@dataclass(frozen=True)
class Read:
    """The model's inputs for those ``rows`` of ``count`` samples that could be read; of the others why not.

    ``samples``: of each row what ``Inputs.read`` took, if somebody asks for it.
    """

    count: int
    feeds: Arrays
    rows: Sequence[int]
    faults: Mapping[int, str] = field(default_factory=dict)
    samples: Sequence[object] = ()

    def no_outputs(self, served: Served) -> Arrays:
        """The outputs where not one sample could be read."""
        tensors = served.predictor.package.task.outputs.tensors
        return {t.name: np.zeros((0, *(n or 0 for n in t.sizes)), t.dtype) for t in tensors}


def read_asked(served: Served, asked: Asked, keep: bool) -> Read:
    """The inputs of a request; ``keep``: its samples are asked for.

    Raises:
        Refused: they are not the model's. BackendMissing, PackageError: as ``Inputs.read``.
    """
    tensors = served.inputs
    given = {one.name: one for one in asked.inputs}
    for name in given:
        if name not in tensors:
            raise Refused(400, f"input {shortened(name)} is none of the model's; it has {', '.join(tensors)}")
    for name in tensors:
        if name not in given:
            raise Refused(400, f"input {name} is not given; the model needs {', '.join(tensors)}")
    encoded = [one for one in asked.inputs if isinstance(one.values, list)]
    if encoded:
        if len(tensors) > 1:
            raise Refused(400, f"input {encoded[0].name} is {BYTES}, which a model of one input alone takes")
        return read_samples(served, _elements(encoded[0]), asked.report, keep)
    feeds = {name: _array(given[name], tensor, served) for name, tensor in tensors.items()}
    count = count_of(feeds)
    if any(len(array) != count for array in feeds.values()):
        raise Refused(400, "the inputs have several numbers of samples; their first dimensions must be alike")
    return _checked(served, feeds)


def read_samples(served: Served, elements: Sequence[bytes], report: bool, keep: bool) -> Read:
    """Image files or texts as the model's inputs; with ``report`` those that cannot be read are told, not refused.

    Raises:
        Refused: as ``read_asked``.
    """
    task = served.predictor.package.task
    one = task.inputs.noun[:-1]
    opener = getattr(task.inputs, "open_bytes", None)
    if opener is None:
        raise Refused(400, f"the model takes {task.inputs.noun} as tensors alone; {BYTES} are not read")
    fixed = all(None not in tensor.sizes for tensor in task.inputs.tensors)
    join: Optional[Join] = getattr(task.inputs, "join", None)
    keep = keep and task.place is not None
    if keep and len(elements) > MAX_KEPT:
        raise Refused(400, f"{len(elements)} {task.inputs.noun} are asked for; at most {MAX_KEPT} at a time")
    parts: List[Arrays] = []
    samples: List[object] = []
    rows: List[int] = []
    faults: Dict[int, str] = {}
    for number, data in enumerate(elements):
        try:
            part, sample = _one(served, opener, data, f"{one} {number}")
        except InputError as e:
            faults[number] = str(e).replace(f"{one} 0", f"{one} {number}", 1)  # it was read as the only one
            if not report:
                raise Refused(400, faults[number]) from e
            continue
        rows.append(number)
        parts.append(part)
        samples.extend([sample] if keep or not (fixed or join) else ())
    if not rows:
        return Read(len(elements), {}, (), faults)
    # Where sizes differ only the task knows how samples become one array.
    feeds = joined(parts) if fixed or len(parts) == 1 else join(parts) if join else served.predictor.read(samples)
    return Read(len(elements), feeds, rows, faults, samples if keep else ())


@contextmanager
def holding(served: Served, count: int, sizes: Optional[Mapping[str, int]] = None) -> Iterator[None]:
    """Memory for ``count`` samples, their inputs and outputs: a file of a kilobyte may become a picture of megabytes.

    ``sizes``: those of named dimensions, as far as they are known.

    Raises:
        Refused: 413: they are more than a request may have, though it may always have one; 503: none is left.
    """
    row = sum(_row_bytes(one, sizes or {}) for one in (*served.inputs.values(), *served.outputs.values()))
    size = count * row
    if size > BLOCK_BYTES and count > 1:
        rule = f"at most {BLOCK_BYTES}: send at most {max(1, BLOCK_BYTES // row)} at a time"
        raise Refused(413, f"{count} samples have {size} bytes of inputs and outputs; {rule}")
    size = min(size, BLOCK_BYTES)
    served.memory.take(size)
    try:
        yield
    finally:
        served.memory.give_back(size)


def holding_asked(served: Served, asked: Asked) -> ContextManager[None]:
    """``holding``, of the samples of a request, however it gives them.

    Raises:
        Refused: as ``holding``.
    """
    count = max(one.shape[0] for one in asked.inputs)
    if count > MAX_ROWS:
        return nullcontext()  # is refused for that
    sizes: Dict[str, int] = {}
    for one in asked.inputs:
        dims = served.inputs[one.name].dims if one.name in served.inputs and one.datatype != BYTES else ()
        sizes.update((dim, size) for dim, size in zip(dims, one.shape[1:]) if isinstance(dim, str))
    return holding(served, count, sizes)


def _row_bytes(tensor: Tensor, sizes: Mapping[str, int]) -> int:
    known = tuple(sizes.get(one, 1) if isinstance(one, str) else one for one in tensor.dims)
    return replace(tensor, dims=known).row_bytes


def _one(served: Served, opener: Callable[[bytes, str], object], data: bytes, name: str) -> Tuple[Arrays, object]:
    with served.reading:
        sample = opener(data, name)
        return served.predictor.read(sample), sample


def _elements(tensor: InputTensor) -> List[bytes]:
    """The elements of a BYTES tensor [N] or [N, 1]."""
    if not isinstance(tensor.values, list) or len(tensor.shape) > 2 or len(tensor.values) != tensor.shape[0]:
        rule = "must be [N] or [N, 1]: each element is a whole sample"
        raise Refused(400, f"input {tensor.name} is {BYTES}{list(tensor.shape)}; {rule}")
    _check_rows(tensor.shape[0])
    return tensor.values


def _array(given: InputTensor, tensor: Tensor, served: Served) -> Array:
    wanted = datatype_of(tensor.dtype)
    if isinstance(given.values, list) or given.datatype != wanted or not tensor.fits(given.shape):
        rule = f"must be {wanted}[{', '.join(map(str, ('N', *tensor.dims)))}]"
        also = ""
        if hasattr(served.predictor.package.task.inputs, "open_bytes"):
            also = f", or {BYTES}[N] of {served.predictor.package.task.inputs.noun}"
        raise Refused(400, f"input {given.name} is {given.datatype}{list(given.shape)}; {rule}{also}")
    _check_rows(given.shape[0])
    return given.values


def _checked(served: Served, feeds: Arrays) -> Read:
    count = count_of(feeds)
    if not served.predictor.package.task.inputs.any_value:
        try:
            feeds = served.predictor.read(feeds)
        except InputError as e:
            raise Refused(400, str(e)) from e
    return Read(count, feeds, range(count))


def _check_rows(count: int) -> None:
    if count > MAX_ROWS:
        raise Refused(400, f"the request holds {count} samples; at most {MAX_ROWS} at a time")
