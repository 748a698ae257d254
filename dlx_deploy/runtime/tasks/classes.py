"""Answers that are one class of several, by logits: what image and text classification have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import record, replace
from .arrays import Agreement, Arrays, Tensor, Tolerance, within
from .grouped import group_columns, group_of
from .judging import OWN, Judging
from .predictions import Predictions, check_finite
from .task import Budgets, PredictionRow, PredictOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.fields import Fields
    from ..statistics.groups import Judged
    from ..statistics.resampled import Bounds
    from .class_verdicts import Verification
    from .slices import SliceBudgets

__all__ = ["ANSWER", "LABEL", "LOGITS", "RIGHT", "TEACHER", "Classes", "read_labels"]

LOGITS = "logits"
LABEL, TEACHER = "label", "teacher"  # columns: the right class, and the teacher's first
RIGHT, ANSWER = (
    "right",
    "answer",
)  # of the statistic, with LABEL: bool[n], whether a model is right; int32[n], its class


@record
class Classes:
    """Logits float32[N, K] of K classes; ``labels`` are their names, in the order of the logits."""

    labels: Tuple[str, ...]
    columns: Tuple[Tensor, ...] = (Tensor(LABEL, "int64", ()), Tensor(TEACHER, "int64", ()))
    targets: Tuple[str, ...] = (LABEL,)
    agreement: str = "every top-1 the same"
    judging: Judging = OWN

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The one output."""
        return (Tensor(LOGITS, "float32", (len(self.labels),)),)

    def judged_by(self, judging: Judging) -> Classes:
        """These, judged by another metric, or by whole groups of samples.

        Raises:
            InputError: there is no such metric.
        """
        from .class_metrics import MetricClasses
        from .metric_names import is_user_metric_name
        from .user_metric import UserClasses

        if not judging.metric:
            own = Classes(self.labels).columns
            return replace(self, columns=(*own, *group_columns(judging.grouped)), judging=judging)
        if is_user_metric_name(judging.metric):
            return UserClasses.of(self.labels, judging)
        return MetricClasses.of(self.labels, judging)

    def fields(self) -> Dict[str, object]:
        """The names of the classes."""
        return {"labels": list(self.labels)}

    def describe(self) -> List[Tuple[str, str]]:
        """How many classes, and the first of them."""
        more = ", …" if len(self.labels) > 10 else ""
        return [("classes", f"{len(self.labels)}: {', '.join(self.labels[:10])}{more}")]

    def decode(self, outputs: Arrays) -> Predictions:
        """The predictions behind the logits."""
        return Predictions(outputs[LOGITS], self.labels)

    def rows(self, answers: Predictions, named: Sequence[str], options: PredictOptions) -> List[PredictionRow]:
        """The ``options.top`` classes of each sample, best first.

        Raises:
            InputError: ``top`` is under 1, or there is a folder for files. PackageError: the logits are no numbers.
        """
        if options.out is not None:
            raise InputError(f"out is {str(options.out)!r}, and a class is no file; leave it out")
        rows = []
        for best in answers.top(options.top):
            ranked = [{"class": self.labels.index(label), "label": label, "probability": p} for label, p in best]
            rows.append(PredictionRow({"top": ranked}, [f"{label} {p:.4f}" for label, p in best]))
        return rows

    def compare(self, outputs: Arrays, golden: Arrays, tolerances: Mapping[str, Tolerance]) -> Agreement:
        """Each logit within its tolerance, and the same class first."""
        close = within(outputs, golden, tolerances)
        same = outputs[LOGITS].argmax(axis=1) == golden[LOGITS].argmax(axis=1)
        return Agreement(close.rows & same, close.furthest)

    def difference(self, outputs: Arrays, golden: Arrays, row: int) -> Tuple[str, str, str]:
        """The logit that is furthest away, and the two classes."""
        logits, wanted = outputs[LOGITS][row], golden[LOGITS][row]
        k = int(np.nan_to_num(np.abs(logits - wanted), nan=np.inf).argmax())
        first, expected = self.labels[int(logits.argmax())], self.labels[int(wanted.argmax())]
        return (
            LOGITS,
            f"logit {k} ({self.labels[k]!r}) is {logits[k]:.6g}, expected {wanted[k]:.6g}",
            f"top-1 is {first!r}, expected {expected!r}",
        )

    def fault(self, golden: Arrays) -> Optional[Tuple[str, str]]:
        """Logits that are no numbers."""
        if np.isfinite(golden[LOGITS]).all():
            return None
        return LOGITS, "holds NaN or infinite values; all must be finite"

    def column_fault(self, columns: Arrays) -> Optional[Tuple[str, str]]:
        """Classes that there are not."""
        most = len(self.labels) - 1
        for name in (LABEL, TEACHER):
            column = columns[name]
            outside = column[(column < 0) | (column > most)]
            if len(outside):
                return name, f"names class {int(outside[0])}; must be 0 to {most}"
        return None

    def decisions(self, outputs: Arrays) -> NDArray[np.int32]:
        """The class that is first, int32[n, 1]."""
        first: NDArray[np.int32] = outputs[LOGITS].argmax(axis=1).astype(np.int32)[:, None]
        return first

    def features(self, outputs: Arrays) -> Arrays:
        """Of each sample the probability of its answer, float32[n], and the answer, int64[n]."""
        logits = outputs[LOGITS]
        most = logits.max(axis=1, keepdims=True)
        return {"confidence": 1 / np.exp(logits - most).sum(axis=1), "class": logits.argmax(axis=1)}

    def check_targets(self, targets: Arrays, count: int, noun: str) -> None:
        """Refuses labels that do not fit ``count`` samples.

        Raises:
            InputError: no whole numbers [N], another number of them, none, or classes that there are not.
        """
        labels = targets[LABEL]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(
                f"labels are {labels.dtype}{list(labels.shape)}; must be whole numbers [N], the class of each of the "
                f"{noun}"
            )
        if len(labels) != count or not count:
            raise InputError(f"there are {count} {noun} and {len(labels)} labels; must be as many, and at least one")
        low, high, classes = int(np.min(labels)), int(np.max(labels)), len(self.labels)
        if low < 0 or high >= classes:
            raise InputError(f"labels run from {low} to {high}; the package has {classes} classes, 0 to {classes - 1}")

    def record(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """The right class and the teacher's first, int64[n] each."""
        own = {LABEL: np.asarray(targets[LABEL], np.int64), TEACHER: outputs[LOGITS].argmax(axis=1).astype(np.int64)}
        return {**own, **group_of(targets)}

    def changed(self, columns: Arrays, targets: Arrays) -> NDArray[np.bool_]:
        """Which labels are others than when the package was built."""
        changed: NDArray[np.bool_] = columns[LABEL] != targets[LABEL]
        return changed

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        """Where the teacher is right, bool[n], also of labels that have changed."""
        return _statistic(columns[TEACHER], targets)

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """Where a model is right, bool[n].

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        check_finite(outputs[LOGITS])
        return _statistic(outputs[LOGITS].argmax(axis=1), targets)

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> Verification:
        """Non-inferiority by Tango's score, or by whole groups where samples come in some; the floor if there is one.

        Raises:
            InputError: a budget out of range.
        """
        from .class_verdicts import judge_classes  # what predicts judges nothing

        return judge_classes(teacher, package, self.labels, budgets, changed)

    def by_slice(
        self, teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]], asked: SliceBudgets
    ) -> Tuple[Tuple[Judged, ...], Tuple[Bounds, ...]]:
        """What each slice has lost and gained, and bounds of its drop where samples come in groups and one has a
        budget."""
        from .class_verdicts import bounds_by_slice, by_slice

        groups = by_slice(teacher, package, columns)
        judged = any(asked.of(group.name) for group in groups)
        return groups, bounds_by_slice(teacher, package, columns) if judged else ()


def _statistic(answers: NDArray[np.int64], targets: Arrays) -> Arrays:
    labels = targets[LABEL]
    own = {RIGHT: answers == labels, ANSWER: answers.astype(np.int32), LABEL: labels.astype(np.int32)}
    return {**own, **group_of(targets)}


def read_labels(field: Fields) -> Tuple[str, ...]:
    """The class names in ``package.json``, at least two, all different.

    Raises:
        PackageError: they are something else.
    """
    labels = field.get("labels", list)
    if len(labels) < 2 or not all(isinstance(x, str) for x in labels) or len(set(labels)) < len(labels):
        raise field.wrong("labels", labels, "must be at least two different strings")
    return tuple(labels)
