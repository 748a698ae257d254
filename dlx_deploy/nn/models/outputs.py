"""What a network answers: named tensors of sizes that its task knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Answer", "Outputs", "fits", "floats", "named_tensors", "sizes", "tensors_of"]

Answer = Any
"""What a network gives: a tensor, or a tuple with one for each of its outputs; and the same as arrays."""

Outputs = Mapping[str, tuple[int | None, ...]]
"""Output name → its dimensions behind the batch, ``None`` where any will do.

A network of one output gives a tensor, one of several a tuple of tensors in this order.
"""


def floats(answer: Answer) -> Answer:
    """``answer`` with float32 tensors."""
    return tuple(tensor.float() for tensor in answer) if isinstance(answer, tuple) else answer.float()


def tensors_of(given: object) -> tuple[Tensor, ...]:
    """What a network gave, a tensor or a tuple of tensors; empty if it is something else."""
    from torch import Tensor

    tensors = given if isinstance(given, tuple) else (given,)
    return tensors if all(isinstance(tensor, Tensor) for tensor in tensors) else ()


def named_tensors(given: object, outputs: Outputs) -> dict[str, Tensor] | None:
    """What a network gave, by name; ``None`` if it is something else than one tensor for each of ``outputs``."""
    tensors = tensors_of(given)
    if len(tensors) != len(outputs) or isinstance(given, tuple) != (len(outputs) > 1):
        return None
    return dict(zip(outputs, tensors, strict=True))


def fits(shape: Sequence[int], rows: int, dims: Sequence[int | None]) -> bool:
    """Whether a tensor of ``shape`` holds ``rows`` answers of ``dims`` each."""
    wanted = (rows, *dims)
    return len(shape) == len(wanted) and all(want in (None, seen) for want, seen in zip(wanted, shape, strict=True))


def sizes(dims: Sequence[int | None]) -> str:
    """The shape of a batch, for people: ``[N, 10]``."""
    return f"[{', '.join(['N', *('any' if size is None else str(size) for size in dims)])}]"
