"""What a task is on a device: a record of two parts, what its network reads and what its answers mean.

A part knows only its own: a segmentation of images shares ``ImageInputs`` with their classification, a regression on
texts ``TextInputs``. Everything outside this room works on named arrays and asks these two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

from ..files import PathLike
from ..records import record
from ..untyped import Array, JsonTable
from .arrays import Agreement, Arrays, Tensor, Tolerance
from .slices import NO_SLICES, SliceBudgets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..errors import RuntimeFault

__all__ = [
    "Answers",
    "Budgets",
    "Inputs",
    "Judgement",
    "Outputs",
    "PredictOptions",
    "PredictionRow",
    "Task",
]


@record
class Budgets:
    """What a package is judged by: fractions; 0 but for the first two: no budget.

    ``max_flips``: of the answers so many may be others than the teacher's. ``max_class_drop``: as ``max_drop``, of each
    class by itself. ``slices``: of each slice, and the columns whose values these are.
    """

    max_drop: float
    confidence: float
    min_accuracy: float = 0.0
    max_flips: float = 0.0
    max_class_drop: float = 0.0
    slices: SliceBudgets = NO_SLICES


@record
class PredictOptions:
    """What ``predict`` is asked for: the ``top`` best of each answer; ``out``: the folder for a task's files.

    ``drawn``: what is a picture comes in the answer itself, as a PNG in base64, with the colours in it. ``given``: the
    samples themselves, as ``Inputs.read`` took them; none: what they are named is where they are.
    """

    top: int = 1
    out: Optional[PathLike] = None
    given: Sequence[object] = ()
    drawn: bool = False


@record
class PredictionRow:
    """One sample's answer: ``data`` for JSON, ``cells`` for a line of text."""

    data: JsonTable
    cells: Sequence[str]


class Answers(Protocol):
    """What ``predict`` gives: as long as there are samples."""

    def __len__(self) -> int:
        """The number of samples."""

    def to_dict(self) -> Dict[str, object]:
        """The answers as JSON-ready values."""


class Judgement(Protocol):
    """The verdict on a package against its teacher."""

    def failure(self) -> Optional[RuntimeFault]:
        """The error that it amounts to, or ``None`` if all passes."""

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""

    def lines(self, noun: str) -> List[str]:
        """The result for people; ``noun`` is what the samples are."""


class Inputs(Protocol):
    """What a network reads, and how what a user has becomes that.

    Where there is such a thing it has three methods more, as ``ImageInputs``: ``read_own`` (arrays of a user, BGR or
    not), ``open_source`` (folders, videos) and ``open_camera``. Inputs that differ in length have ``join`` if those of
    several callers may be one batch, as ``TextInputs``; ``features`` is for a drift watch (``features_of``).
    What arrives over a network as bytes needs ``open_bytes``, and ``media``: the Content-Type of such a sample, as in
    ``image/*``.
    """

    @property
    def noun(self) -> str:
        """What the samples are, in the plural, as in ``images``; ``noun[:-1]`` is one."""

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The inputs."""

    @property
    def any_value(self) -> bool:
        """Whether an array of the right dtype and shape is good whatever is in it, and needs no reading."""

    @property
    def samples(self) -> Sequence[object]:
        """The golden samples as a user has them, if the package holds them; else the golden inputs are all there is."""

    def fields(self) -> Dict[str, object]:
        """What ``package.json`` says of this part, beside ``inputs``."""

    def members(self) -> Dict[str, bytes]:
        """The files that this part needs in a package, by name."""

    def describe(self, batch: Optional[int]) -> str:
        """The input, for people."""

    def read(self, given: object) -> Dict[str, Array]:
        """``given`` (files, arrays, texts, or arrays by name) as the inputs.

        Raises:
            InputError: it cannot be used. BackendMissing: a library that decodes it is not here.
        """

    def trim(self, feeds: Arrays) -> Arrays:
        """``feeds`` without the padding that only rows of other blocks need: neighbours leave no trace."""

    def digests(self, feeds: Arrays) -> NDArray[np.uint64]:
        """A number for each sample that is the same wherever it is read."""

    def fault(self, feeds: Arrays) -> Optional[Tuple[str, str]]:
        """The input whose golden values mean nothing, and why; ``None`` if all are well."""

    def sample_fault(self, golden: Arrays) -> Optional[str]:
        """How ``samples``, read here, differ from the golden inputs; ``None`` if they do not."""

    def check_argument(self, argument: str) -> None:
        """Refuses a word of the command line that cannot be a sample.

        Raises:
            InputError: says why, and what to do.
        """


class Outputs(Protocol):
    """What a network's answers mean, and how well two of them agree.

    Where there is such a thing it has methods more: ``decisions`` and ``features``, for parity and a drift watch;
    ``by_slice``, as ``Classes`` have it, where answers are judged by any groups of samples.
    """

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The outputs."""

    @property
    def columns(self) -> Tuple[Tensor, ...]:
        """What the reference table holds of each sample, beside its digest."""

    @property
    def targets(self) -> Tuple[str, ...]:
        """What labelled data say of each sample: the names of ``Task.load_labelled``'s targets."""

    @property
    def agreement(self) -> str:
        """What a self-test that passed has shown beside closeness, for people."""

    def fields(self) -> Dict[str, object]:
        """What ``package.json`` says of this part, beside ``outputs``."""

    def describe(self) -> List[Tuple[str, str]]:
        """This part for people: a word and what it is, each a line."""

    def decode(self, outputs: Arrays) -> Answers:
        """The predictions behind ``outputs``."""

    def rows(self, answers: Any, named: Sequence[str], options: PredictOptions) -> List[PredictionRow]:
        """The answers to the samples that a command line ``named``.

        Raises:
            InputError: an option that this task has no use for. PackageError: the answers are no numbers.
        """

    def compare(self, outputs: Arrays, golden: Arrays, tolerances: Mapping[str, Tolerance]) -> Agreement:
        """How ``outputs`` compare with the ``golden`` ones of the same samples."""

    def difference(self, outputs: Arrays, golden: Arrays, row: int) -> Tuple[str, str, str]:
        """How row ``row`` differs: the output, what is another value in it, and what is another answer (or nothing)."""

    def fault(self, golden: Arrays) -> Optional[Tuple[str, str]]:
        """The output whose golden values mean nothing, and why; ``None`` if all are well."""

    def column_fault(self, columns: Arrays) -> Optional[Tuple[str, str]]:
        """The column of the reference table whose values mean nothing, and why; ``None`` if all are well."""

    def check_targets(self, targets: Arrays, count: int, noun: str) -> None:
        """Refuses targets that do not fit ``count`` samples.

        Raises:
            InputError: another number of them, or values that there are not.
        """

    def record(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """The columns of the reference table for the teacher's ``outputs``."""

    def changed(self, columns: Arrays, targets: Arrays) -> NDArray[np.bool_]:
        """bool[n]: which targets are others than when the package was built."""

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        """The teacher's statistic per sample, from the reference table.

        Raises:
            InputError: the table does not say it for these targets.
        """

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """What the verdict rests on, per sample, of a model's ``outputs``.

        Raises:
            PackageError: the outputs are no numbers.
        """

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> Judgement:
        """The verdict on the package's statistic against its teacher's.

        Raises:
            InputError: a budget out of range.
        """


@record
class Task:
    """One package's task. ``load_labelled`` reads labelled data: samples for ``Inputs.read``, and targets by name.

    ``names``: what each of these samples is called, in that order, none of them read; nothing where they have no names.
    ``columns``: what each of them has in those of some columns that their list has, as text; nothing of a folder.
    ``place``: answers that lie on their samples (a mask) told how large these are, from what ``Inputs.read`` was given.
    """

    name: str
    inputs: Inputs
    outputs: Outputs
    load_labelled: Callable[[PathLike], Tuple[object, Arrays]]
    place: Optional[Callable[[Any, object], Answers]] = None
    names: Optional[Callable[[PathLike], Sequence[str]]] = None
    columns: Optional[Callable[[PathLike, Sequence[str]], Mapping[str, Sequence[str]]]] = None
