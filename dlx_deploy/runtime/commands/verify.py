"""The accuracy gate on the device: the package against its teacher, sample by sample."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

import numpy as np

from ..backends.session import InferenceSession, ModelEnd, open_session, session_errors, tensor_type
from ..errors import InputError, PackageError, TeacherNeeded
from ..files import PathLike, TooLarge, read_file, reason
from ..package.members import DIGEST
from ..package.model_bytes import MAX_BYTES as MAX_MODEL_BYTES
from ..package.model_bytes import check_model_bytes
from ..predictor import Predictor
from ..records import record
from ..tasks.arrays import Arrays, block_rows, count_of, joined, rows_of
from ..tasks.grouped import GROUP, of_known, together
from ..tasks.task import Budgets, Judgement, Outputs, Task
from ..untyped import Array
from ..words import first_names, line, said
from .parity import BLOCK, Parity

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PassedOver", "Verified", "teacher_outputs", "verify_package"]


class Verified(NamedTuple):
    """The judgement, and the numbers of the samples that it does not rest on: those beside the build's test split.

    ``teacher``, ``statistic``: the teacher's and the package's, of the others. ``alone``: so many were taken each for
    one of its own, in a package that is judged by groups and does not say of which they are.
    """

    judgement: Judgement
    passed_over: Tuple[int, ...]
    teacher: Arrays
    statistic: Arrays
    alone: int = 0


@record
class PassedOver:
    """So many of the samples ``given`` were not judged; ``first``: what some of them are called."""

    count: int
    given: int
    first: Tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[int], given: int, names: Sequence[str]) -> PassedOver:
        """Those of the numbers ``rows``; ``names``: of all samples, if they have any of their own."""
        return cls(len(rows), given, first_names(rows, names))

    def describe(self, noun: str) -> str:
        """That, and what judges them too, in a line for people."""
        first = ", ".join(map(line, self.first)) + (", …" if self.count > len(self.first) else "")
        return (
            f"passed over: {self.count} of {self.given} {noun} (first: {first}) are not of the build's test split and "
            "not judged; to judge all, the new and those it was trained on, give the teacher: --teacher model.onnx"
        )


def verify_package(
    predictor: Predictor,
    feeds: Arrays,
    targets: Arrays,
    budgets: Optional[Budgets] = None,
    teacher: Optional[Arrays] = None,
    parity: Optional[Parity] = None,
) -> Verified:
    """The verdict on what ``Predictor.read`` gave, with its ``targets`` by name.

    Targets may say the ``group`` of each sample, as a list has it; where the package knows groups too, samples are of
    one where either says so. The teacher's answers are its outputs, ``teacher``, or else those in the package, found by
    the samples' digests; then samples beside the whole of the build's test split are passed over, which the result
    says. ``budgets`` default to the package's own. ``parity`` hears the answers, to hold them against the builder's.

    Raises:
        InputError: no samples, counts or targets that do not fit, or a budget out of range.
        TeacherNeeded: samples, or masks of them, for which the package does not say how its teacher does.
    """
    package, outputs = predictor.package, predictor.package.task.outputs
    count, noun = count_of(feeds), package.task.inputs.noun
    outputs.check_targets(targets, count, noun)
    if teacher is not None and count_of(teacher) != count:
        raise InputError(f"there are {count_of(teacher)} answers of the teacher for {count} {noun}; must be as many")
    digests = package.task.inputs.digests(feeds)
    known, columns = _look_up(package.reference, digests, outputs, targets)
    unknown: List[int] = [] if teacher is not None else np.flatnonzero(~known).tolist()
    if unknown and _holds_all(package.reference, columns):
        # The test split, whole, and others: of train, or set aside for validation and calibration.
        rows = np.flatnonzero(known)
        feeds, targets, digests = rows_of(feeds, rows), rows_of(targets, rows), digests[rows]
        count, known = len(rows), known[rows]
    listed = GROUP in targets
    groups = _groups_of(targets.get(GROUP), of_known(columns, known), outputs, predictor.say)
    targets = {**{name: targets[name] for name in outputs.targets}, **groups}
    if teacher is not None:
        by_teacher = outputs.statistic(teacher, targets)
    elif known.all():
        by_teacher = outputs.recall(columns, targets)
    else:
        raise TeacherNeeded(
            f"{len(unknown)} of {count} {noun}",
            "are not in the package's reference table, so the teacher's answers for them are unknown; use the test "
            "split of the build",
            unknown,
        )
    parts = []
    size = block_rows((*package.task.inputs.tensors, *outputs.tensors), BLOCK)
    for start in range(0, count, size):
        predictor.tell(start, count, noun)
        block = slice(start, start + size)
        answers = predictor.run(rows_of(feeds, block))
        parts.append(outputs.statistic(answers, rows_of(targets, block)))
        if parity is not None:
            parity.add(digests[block], answers)
    changed = int(outputs.changed(columns, rows_of(targets, known)).sum())
    statistic = joined(parts)
    judgement = outputs.judge(by_teacher, statistic, budgets or package.budgets, changed)
    alone = int((~known).sum()) if GROUP in statistic and not listed else 0
    return Verified(judgement, tuple(unknown), by_teacher, statistic, alone)


def _groups_of(
    listed: Optional[Array], known: Dict[str, Array], outputs: Outputs, say: Callable[[str], None]
) -> Dict[str, Array]:
    """The groups that are drawn, if any: those that a list says, int64[n], and those that the package knows."""
    if listed is None:
        return known
    if GROUP in known:
        return {GROUP: together(known[GROUP], listed)}
    if len(np.unique(listed)) == len(listed):  # each sample is alone
        return {}
    if getattr(outputs, "judged_by", None) is None:
        say("warning: these samples come in groups, and this task draws single ones: a verdict is surer than it is")
        return {}
    return {GROUP: listed}


def teacher_outputs(path: PathLike, task: Task, feeds: Arrays, threads: int = 0) -> Dict[str, Array]:
    """The outputs of the ONNX model at ``path``, which reads ``feeds`` and answers as the task says.

    Raises:
        InputError: no such file, or a model that is not one, does not take these inputs, fails on them, or gives other
            than finite outputs of the task's shapes.
        BackendMissing: onnxruntime is not here.
    """
    name = os.fspath(path)
    session = _open_teacher(name, threads)
    wanted = [(key, tensor_type(str(array.dtype)), array.shape[1:]) for key, array in feeds.items()]
    nodes = session.get_inputs()
    reads = [(x.name, x.type, _filled(x, feeds)) for x in nodes]
    batch = nodes[0].shape[0] if nodes else None
    if sorted(reads) != sorted(wanted) or isinstance(batch, int):
        raise InputError(f"{name}: the teacher reads {reads} at batch {batch}; must read {wanted} at any batch")
    tensors = task.outputs.tensors
    given = [x.name for x in session.get_outputs()]
    names = [t.name for t in tensors] if {t.name for t in tensors} <= set(given) else given[: len(tensors)]
    count = count_of(feeds)
    size = block_rows((*task.inputs.tensors, *tensors), BLOCK)
    blocks = [rows_of(feeds, slice(i, i + size)) for i in range(0, count, size)]
    faults: Tuple[Type[BaseException], ...] = (*session_errors(), IndexError)
    try:
        runs = [session.run(names, block) for block in blocks]
        outputs = joined([{tensor.name: run[i] for i, tensor in enumerate(tensors)} for run in runs])
    except faults as e:
        raise InputError(f"{name}: the teacher cannot be run: {said(e)}") from e
    for tensor in tensors:
        value = outputs[tensor.name]
        if not tensor.fits(value.shape) or len(value) != count:
            raise InputError(f"{name}: the teacher gives {list(value.shape)}; must give {[count, *tensor.dims]}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(f"{name}: the teacher gives NaN or infinite {tensor.name}; all must be finite")
    return outputs


def _open_teacher(name: str, threads: int) -> InferenceSession:
    try:
        model = read_file(name, MAX_MODEL_BYTES)
    except TooLarge as e:
        raise InputError(f"{name}: the teacher has {e} bytes; an ONNX model has at most {MAX_MODEL_BYTES}") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: the teacher cannot be read ({reason(e)}); give an .onnx file") from e
    try:
        check_model_bytes(model, name)
    except PackageError as e:
        raise InputError(str(e)) from e
    try:
        return open_session(model, exact_qdq=False, threads=threads)
    except PackageError as e:
        raise InputError(f"{name}: {e}") from e


def _filled(node: ModelEnd, feeds: Arrays) -> Tuple[int, ...]:
    """The dimensions of a model's input, dynamic ones as large as they are asked to be."""
    sizes: Sequence[int] = feeds[node.name].shape[1:] if node.name in feeds else ()
    own = node.shape[1:]
    return tuple(d if isinstance(d, int) else sizes[i] if i < len(sizes) else 0 for i, d in enumerate(own))


def _look_up(
    reference: Arrays, digests: NDArray[np.uint64], outputs: Outputs, targets: Arrays
) -> Tuple[NDArray[np.bool_], Dict[str, Array]]:
    """Which samples the reference table has, bool[n], and the rows of those, in their order.

    A sample that was in the build's split more than once has several rows: that of its target is taken.
    """
    places: Dict[int, List[int]] = {}
    for row, digest in enumerate(reference[DIGEST]):
        places.setdefault(int(digest), []).append(row)
    rows = []
    for i, digest in enumerate(digests):
        candidates = places.get(int(digest), [-1])
        same = (row for row in candidates[1:] if not _is_changed(reference, row, outputs, targets, i))
        first = candidates[0]
        several = len(candidates) > 1 and _is_changed(reference, first, outputs, targets, i)
        rows.append(next(same, first) if several else first)
    known = np.array([row >= 0 for row in rows], bool)
    return known, rows_of(reference, [row for row in rows if row >= 0])


def _holds_all(reference: Arrays, columns: Arrays) -> bool:
    """Whether every sample of the ``reference`` table is among the rows ``columns`` of it."""
    return len(reference[DIGEST]) > 0 and not len(np.setdiff1d(reference[DIGEST], columns[DIGEST]))


def _is_changed(reference: Arrays, row: int, outputs: Outputs, targets: Arrays, sample: int) -> bool:
    return bool(outputs.changed(rows_of(reference, [row]), rows_of(targets, [sample]))[0])
