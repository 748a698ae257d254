"""Every error that the runtime raises on purpose, and the exit code it ends with.

RuntimeFault
├── PackageError      2   a .dlx that is truncated, tampered with, foreign, newer than this reader, or unsafe
├── InputError        2   an image, array, folder or option that cannot be used
│   └── TeacherNeeded     samples to which the teacher's answers are not in the package
├── BudgetMissed      3   the accuracy or latency budget is missed
├── BackendMissing    4   a library or execution provider that is not here
├── Busy              4   a queue before a model that has no room for more
│   ├── Expired           what was not answered in the time that it had
│   └── Stopped           a queue that was closed
├── SelfTestFailed    5   the golden inputs do not give the golden outputs on this machine
├── Undecided         6   too few images or timings to say
└── EngineError       7   an engine that cannot be built, is not what was asked for, or must not be loaded here
"""

from __future__ import annotations

from typing import ClassVar, Iterable, Optional, Sequence

from .words import first_names

__all__ = [
    "BackendMissing",
    "BudgetMissed",
    "Busy",
    "EngineError",
    "Expired",
    "InputError",
    "PackageError",
    "RuntimeFault",
    "SelfTestFailed",
    "Stopped",
    "TeacherNeeded",
    "Undecided",
    "first_fault",
]


class RuntimeFault(Exception):
    """What all errors of the runtime have in common: a message for a person and an exit code."""

    exit_code: ClassVar[int] = 1


class PackageError(RuntimeFault):
    """Raised when a package cannot be trusted or read; nothing of it is used."""

    exit_code: ClassVar[int] = 2


class InputError(RuntimeFault):
    """Raised when what the caller gave cannot be used: what, value seen, rule, remedy."""

    exit_code: ClassVar[int] = 2


class TeacherNeeded(InputError):
    """Raised when the package does not say what its teacher answers to some samples: those of the numbers ``rows``.

    ``what`` they are, and ``why`` that is not known. ``names``: of all samples, if they have any of their own.
    """

    def __init__(self, what: str, why: str, rows: Sequence[int], names: Sequence[str] = ()) -> None:
        self.what, self.why, self.rows = what, why, tuple(rows)
        self.first = first_names(self.rows, names)
        more = ", …" if len(self.rows) > len(self.first) else ""
        super().__init__(
            f"{what} (first: {', '.join(self.first)}{more}) {why}, or give the teacher: --teacher model.onnx "
            "(dlx-deploy verify finds it by itself in the build's store)"
        )

    def of(self, names: Sequence[str]) -> TeacherNeeded:
        """The same, of samples that are called so."""
        return TeacherNeeded(self.what, self.why, self.rows, names)


class BudgetMissed(RuntimeFault):
    """Raised when the measurement shows, at the confidence asked for, that a budget is missed."""

    exit_code: ClassVar[int] = 3


class BackendMissing(RuntimeFault):
    """Raised when onnxruntime, Pillow or an execution provider is not on this machine."""

    exit_code: ClassVar[int] = 4


class Busy(RuntimeFault):
    """Raised when more wait for a model than may; asking again later may help."""

    exit_code: ClassVar[int] = 4


class Expired(Busy):
    """Raised when a call was not answered in the time that it had."""


class Stopped(Busy):
    """Raised when a queue was closed, for good."""


class SelfTestFailed(RuntimeFault):
    """Raised when the golden inputs do not give the golden outputs."""

    exit_code: ClassVar[int] = 5


class Undecided(RuntimeFault):
    """Raised when there are too few measurements to decide at the confidence asked for."""

    exit_code: ClassVar[int] = 6


class EngineError(RuntimeFault):
    """Raised when a TensorRT engine cannot be built, is not what its plan asked for, or must not be loaded here."""

    exit_code: ClassVar[int] = 7


def first_fault(faults: Iterable[Optional[RuntimeFault]]) -> Optional[RuntimeFault]:
    """Of several verdicts' errors the one to end with: a miss before an undecided one; ``None`` if all pass."""
    return min((fault for fault in faults if fault), key=lambda fault: fault.exit_code, default=None)
