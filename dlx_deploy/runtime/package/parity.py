"""The builder's answers to hundreds of real samples, as a package holds them: what other backends are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Optional

import numpy as np

from ..records import record
from ..tasks.arrays import Arrays, Tensor
from ..tasks.sketches import sketch_tensors
from ..tasks.task import Outputs
from ..untyped import Array
from .fields import Fields, npy_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DECISIONS", "ParityBounds", "ParityTable", "decisions_of", "parity_fields", "parity_members", "read_parity"]

FIELD = "parity"
DIGEST, DECISIONS = "parity/digest.npy", "parity/decisions.npy"
DECIDED = Tensor("decisions", "int32", ("decisions",))
MOST_DB = 1000.0


@record
class ParityBounds:
    """How far a backend's answers may be from the builder's.

    ``sqnr_db``: the signal-to-noise ratio over all samples, at least; ``worst_db``: that of the worst sample, whose
    noise is held against the signal of all. ``differing``: the share of samples that may be decided otherwise.
    """

    sqnr_db: float
    worst_db: float
    differing: float


@record
class ParityTable:
    """``digests``: uint64[n], what finds a sample; ``answers``: by output, float32[n, size], their sketches;
    ``decisions``: int32[n, q], what the task makes of them, or ``None``. ``exact``: the bounds for a backend that
    computes in exact arithmetic, where the package has any; ``other``: for all others.
    """

    digests: NDArray[np.uint64]
    answers: Arrays
    decisions: Optional[Array]
    other: ParityBounds
    exact: Optional[ParityBounds] = None


def decisions_of(task: Outputs, outputs: Arrays) -> Optional[NDArray[np.int32]]:
    """What ``outputs`` decide, int32[n, q]: a class, or those of some pixels; ``None`` of a task that does not say."""
    decide = getattr(task, "decisions", None)  # tasks of other packages may be older than it
    return None if decide is None else np.asarray(decide(outputs), np.int32)


def parity_members(table: ParityTable) -> Dict[str, bytes]:
    """The members that hold the table."""
    arrays: Dict[str, Array] = {DIGEST: table.digests}
    arrays.update({_member(name): array for name, array in table.answers.items()})
    if table.decisions is not None:
        arrays[DECISIONS] = table.decisions
    return {name: npy_bytes(array) for name, array in arrays.items()}


def parity_fields(table: ParityTable) -> Dict[str, object]:
    """What ``package.json`` says of it."""
    bounds = {"other": vars(table.other), **({"exact": vars(table.exact)} if table.exact else {})}
    return {FIELD: {"count": len(table.digests), "bounds": bounds}}


def read_parity(field: Fields, files: Mapping[str, bytes], outputs: Outputs) -> Optional[ParityTable]:
    """The table, ``None`` in a package that has none.

    Raises:
        PackageError: a field or an array of it is missing or wrong.
    """
    if not field.has(FIELD):
        return None
    count = field.count(f"{FIELD}.count", 1, 2**31)
    answers = {}
    for tensor in sketch_tensors(outputs.tensors):
        answers[tensor.name] = field.array(_member(tensor.name), tensor, count)
        if not np.isfinite(answers[tensor.name]).all():
            raise field.damaged(_member(tensor.name), "holds NaN or infinite values; all must be finite")
    decisions = field.array(DECISIONS, DECIDED, count) if DECISIONS in files else None
    return ParityTable(
        digests=field.array(DIGEST, Tensor("digest", "uint64", ()), count),
        answers=answers,
        decisions=decisions,
        other=_bounds(field, "other"),
        exact=_bounds(field, "exact") if field.has(f"{FIELD}.bounds.exact") else None,
    )


def _bounds(field: Fields, name: str) -> ParityBounds:
    path = f"{FIELD}.bounds.{name}"
    sqnr, worst = field.number(f"{path}.sqnr_db", MOST_DB), field.number(f"{path}.worst_db", MOST_DB)
    return ParityBounds(sqnr, worst, field.fraction(f"{path}.differing", 0))


def _member(output: str) -> str:
    return f"parity/answers/{output}.npy"
