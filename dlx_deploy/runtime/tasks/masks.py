"""Answers that are a class for each pixel: logits of every class, a map of classes, mean intersection over union."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError, PackageError, RuntimeFault, TeacherNeeded, first_fault
from ..records import record, replace
from ..statistics.flips import refuse_counted
from ..statistics.groups import GroupsVerdict, describe_worst, judge_groups
from ..statistics.resampled import DropVerdict, FloorVerdict, judge_drops, judge_value
from ..statistics.scored import Scored
from ..words import SAMPLES
from .arrays import Agreement, Arrays, Tensor, Tolerance, digests_of, within
from .classes import LOGITS
from .features import grid_steps
from .framing import Framing, place, unframed
from .grouped import GROUP, drawn_of, group_columns, group_of
from .judging import OWN, Judging
from .mask_classes import class_iou_bounds, class_ious
from .mask_counts import confusion_counts, iou_of, mean_iou_bounds, mean_iou_drops
from .mask_files import IGNORED, mask_paths, write_mask
from .sketches import hashed
from .task import Budgets, PredictionRow, PredictOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COUNTS", "MASK", "TITLE", "MaskVerification", "Masks", "Segmentations"]

MASK = "mask"  # the target
TITLE = "mIoU"
DECIDED = 64
"""Pixels of a mask that a parity table knows the class of."""
MOST_SHARES = 32  # classes whose shares a drift watch knows
MASK_DIGEST, COUNTS = "mask_digest", "counts"  # columns of the reference table


class Segmentations:
    """What a model says about N images: ``classes``, uint8[N, H, W], of the frame it reads; the first one of equals.

    ``sizes``: (height, width) of each image as it was given and is seen; ``None``: it was the network's frame already.
    """

    __slots__ = ("_framing", "_labels", "classes", "sizes")

    def __init__(
        self,
        classes: NDArray[np.uint8],
        labels: Tuple[str, ...],
        framing: Framing,
        sizes: Sequence[Optional[Tuple[int, int]]] = (),
    ) -> None:
        self.classes, self._labels, self._framing = classes, labels, framing
        self.sizes = tuple(sizes) or (None,) * len(classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"Segmentations({len(self)}: {'x'.join(map(str, self.classes.shape[1:]))} pixels each)"

    @property
    def masks(self) -> List[NDArray[np.uint8]]:
        """The classes as large as each image was, uint8[h, w], by nearest neighbour; 255 where the frame cut it off.

        Raises:
            BackendMissing: an image was of another size, and Pillow is not here.
        """
        masks = []
        for mask, size in zip(self.classes, self.sizes):
            masks.append(mask if size is None else np.array(unframed(mask, self._framing, size[::-1], IGNORED)))
        return masks

    def placed(self, sizes: Sequence[Optional[Tuple[int, int]]]) -> Segmentations:
        """These answers, of images of these ``sizes``."""
        return Segmentations(self.classes, self._labels, self._framing, sizes)

    def shares(self) -> List[Dict[str, float]]:
        """Per image the share of each class that is in it, the largest first; padding around an image is none of it."""
        shares = []
        for mask, size in zip(self.classes, self.sizes):
            shown = mask if size is None else mask[_shown(self._framing, *size)]
            count = np.bincount(shown.reshape(-1), minlength=len(self._labels))
            order = np.argsort(-count, kind="stable")
            shares.append({self._labels[k]: float(count[k] / shown.size) for k in order if count[k]})
        return shares

    def to_dict(self) -> Dict[str, Any]:
        """The shares of the classes, JSON-ready; the maps themselves are ``classes``."""
        return {"shares": self.shares()}


@record
class MaskVerification:
    """The gate's verdict, each class's intersection over union, and how many masks have changed since the build.

    ``classes``: how far each class drops, and ``class_budget`` the verdict on that, if there is a budget.
    """

    verdict: DropVerdict
    teacher_iou: Mapping[str, Optional[float]]
    iou: Mapping[str, Optional[float]]
    changed: int
    classes: Tuple[Scored, ...] = ()
    floor: Optional[FloorVerdict] = None
    class_budget: Optional[GroupsVerdict] = None
    reference: str = "teacher"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        judged = (self.verdict, self.floor, self.class_budget)
        return first_fault([verdict.failure() for verdict in judged if verdict])

    def to_dict(self) -> Dict[str, Any]:
        """The result as JSON-ready values."""
        held = asdict(replace(self, classes=(), class_budget=None))
        del held["classes"]  # what is in them is ``teacher_iou`` and ``iou``
        return {**held, "class_budget": self.class_budget.to_dict() if self.class_budget else None}

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        seen = self.verdict
        lines = [
            f"mIoU: {self.reference} {100 * seen.teacher:.2f} %, package {100 * seen.package:.2f} % on {seen.units} "
            f"{noun if seen.noun == SAMPLES else f'{seen.noun} of {noun}'}"
        ]
        there = {label: value for label, value in self.iou.items() if value is not None}
        worst = sorted(there, key=lambda label: there[label])[:3]
        lines.append("lowest: " + ", ".join(f"{label} {100 * there[label]:.2f} %" for label in worst))
        lines.append(seen.explain())
        if self.floor:
            lines.append(self.floor.explain())
        dropped = describe_worst(self.classes, "classes")
        lines += [self.class_budget.explain()] if self.class_budget else [dropped] if dropped else []
        if self.changed:
            lines.append(f"{self.changed} {noun} have another mask than when the package was built")
        return lines


@record
class Masks:
    """Logits float32[N, K, H, W] of K classes; ``ignore``: the value in files of pixels that count for nothing."""

    labels: Tuple[str, ...]
    framing: Framing
    ignore: int = 255
    targets: Tuple[str, ...] = (MASK,)
    agreement: str = "every pixel's class the same but for ties"
    judging: Judging = OWN

    def judged_by(self, judging: Judging) -> Masks:
        """These, judged by whole groups of images.

        Raises:
            InputError: by another metric.
        """
        if judging.metric:
            raise InputError(f"metric is {judging.metric!r}; masks are judged by {TITLE} alone")
        return replace(self, judging=judging)

    @property
    def size(self) -> Tuple[int, int]:
        """Height and width of a mask."""
        return self.framing.height, self.framing.width

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The one output."""
        return (Tensor(LOGITS, "float32", (len(self.labels), *self.size), "NCHW"),)

    @property
    def columns(self) -> Tuple[Tensor, ...]:
        """A mask's digest, and the teacher's right, surplus and missing pixels of each class on it."""
        own = (Tensor(MASK_DIGEST, "uint64", ()), Tensor(COUNTS, "int64", (len(self.labels), 3)))
        return (*own, *group_columns(self.judging.grouped))

    def fields(self) -> Dict[str, Any]:
        """The names of the classes, and the value of pixels that do not count."""
        return {"labels": list(self.labels), "ignore_index": self.ignore}

    def describe(self) -> List[Tuple[str, str]]:
        """How many classes, and the first of them."""
        more = ", …" if len(self.labels) > 10 else ""
        return [("classes", f"{len(self.labels)}, for each pixel: {', '.join(self.labels[:10])}{more}")]

    def decode(self, outputs: Arrays) -> Segmentations:
        """The class of each pixel.

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        return Segmentations(_classes(outputs[LOGITS]), self.labels, self.framing)

    def rows(self, answers: Segmentations, named: Sequence[str], options: PredictOptions) -> List[PredictionRow]:
        """The ``options.top`` largest classes of each image; with ``options.out`` its mask and overlay as files.

        Raises:
            InputError: ``top`` is under 1, or the folder cannot be written.
        """
        if options.top < 1:
            raise InputError(f"top is {options.top}; must be 1 or more")
        paths = mask_paths(named, options.out) if options.out is not None else []
        rows = []
        for i, shares in enumerate(answers.shares()):
            top = dict(list(shares.items())[: options.top])
            data: Dict[str, Any] = {"shares": top}
            cells = [f"{label} {share:.4f}" for label, share in top.items()]
            if paths:
                picture = options.given[i] if options.given else named[i]
                write_mask(answers.classes[i], self.framing, picture, paths[i])
                data.update(mask=paths[i][0], overlay=paths[i][1])
                cells.append(paths[i][0])
            rows.append(PredictionRow(data, cells))
        return rows

    def compare(self, outputs: Arrays, golden: Arrays, tolerances: Mapping[str, Tolerance]) -> Agreement:
        """Each logit within its tolerance: then a pixel's class is another one only on a near tie."""
        return within(outputs, golden, tolerances)

    def difference(self, outputs: Arrays, golden: Arrays, row: int) -> Tuple[str, str, str]:
        """The logit that is furthest away, and how many pixels have another class."""
        logits, wanted = outputs[LOGITS][row], golden[LOGITS][row]
        far = np.nan_to_num(np.abs(logits - wanted), nan=np.inf)
        k, y, x = (int(n) for n in np.unravel_index(int(far.argmax()), far.shape))
        other = int((logits.argmax(axis=0) != wanted.argmax(axis=0)).sum())
        return (
            LOGITS,
            f"logit {k} ({self.labels[k]!r}) of pixel {y}, {x} is {logits[k, y, x]:.6g}, expected "
            f"{wanted[k, y, x]:.6g}",
            f"{other} of {wanted[0].size} pixels have another class",
        )

    def fault(self, golden: Arrays) -> Optional[Tuple[str, str]]:
        """Logits that are no numbers."""
        if np.isfinite(golden[LOGITS]).all():
            return None
        return LOGITS, "holds NaN or infinite values; all must be finite"

    def column_fault(self, columns: Arrays) -> Optional[Tuple[str, str]]:
        """Counts under 0."""
        return (COUNTS, "holds counts under 0") if columns[COUNTS].min(initial=0) < 0 else None

    def decisions(self, outputs: Arrays) -> NDArray[np.int32]:
        """The classes of some pixels that lie all over the mask, int32[n, pixels]."""
        pixels = hashed(DECIDED) % np.uint32(self.size[0] * self.size[1])
        logits = outputs[LOGITS]
        some = logits.reshape(*logits.shape[:2], -1)[:, :, pixels]
        classes: NDArray[np.int32] = some.argmax(axis=1).astype(np.int32)
        return classes

    def features(self, outputs: Arrays) -> Arrays:
        """Of each image the mean probability of its pixels' answers, and the share of each of the first classes,
        float32[n], on a grid of its pixels."""
        rows, columns = grid_steps(*self.size)
        logits = outputs[LOGITS][:, :, ::rows, ::columns]
        confidence = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        classes = logits.argmax(axis=1)
        told = {f"share_{k}": (classes == k).mean(axis=(1, 2)) for k in range(min(len(self.labels), MOST_SHARES))}
        return {"confidence": confidence.mean(axis=(1, 2)), **told}

    def check_targets(self, targets: Arrays, count: int, noun: str) -> None:
        """Refuses masks that do not fit ``count`` images.

        Raises:
            InputError: no uint8[N, H, W], another number or size of them, none, or classes that there are not.
        """
        masks = targets[MASK]
        if masks.dtype != np.uint8 or masks.ndim != 3:
            height, width = self.size
            raise InputError(
                f"masks are {masks.dtype}{list(masks.shape)}; must be uint8[N, {height}, {width}], a class for each "
                f"pixel, or {IGNORED}: ignored"
            )
        if len(masks) != count or not count:
            raise InputError(f"there are {count} {noun} and {len(masks)} masks; must be as many, and at least one")
        if masks.shape[1:] != self.size:
            raise InputError(f"masks are {list(masks.shape)}; must be [N, {self.size[0]}, {self.size[1]}]")
        counted = masks[masks != IGNORED]
        if counted.max(initial=0) >= len(self.labels):
            most = len(self.labels) - 1
            raise InputError(f"masks hold class {int(counted.max())}; must be 0 to {most}, or {IGNORED}: ignored")

    def record(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """The masks' digests and the teacher's counts."""
        return {MASK_DIGEST: digests_of(targets[MASK]), **self.statistic(outputs, targets)}

    def changed(self, columns: Arrays, targets: Arrays) -> NDArray[np.bool_]:
        """Which masks are others than when the package was built."""
        changed: NDArray[np.bool_] = columns[MASK_DIGEST] != digests_of(targets[MASK])
        return changed

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        """The teacher's counts, int64[n, K, 3].

        Raises:
            TeacherNeeded: a mask has changed, on which the teacher's counts say nothing.
        """
        changed = np.flatnonzero(self.changed(columns, targets)).tolist()
        if changed:
            raise TeacherNeeded(
                f"{len(changed)} of {len(targets[MASK])} masks",
                "are others than when the package was built, so what the teacher got right on them is unknown; use the "
                "masks of the build",
                changed,
            )
        return {COUNTS: columns[COUNTS], **group_of(targets)}

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """Right, surplus and missing pixels of each class, int64[n, K, 3].

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        classes = _classes(outputs[LOGITS])
        return {COUNTS: confusion_counts(classes, targets[MASK], len(self.labels)), **group_of(targets)}

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> MaskVerification:
        """A paired bootstrap over images of the mean intersection over union, its floor, and that of each class, if
        there are budgets of these.

        Raises:
            InputError: a budget out of range, or one of changed answers.
        """
        refuse_counted(budgets.max_flips, 0.0, TITLE)
        ours, theirs, groups = teacher[COUNTS], package[COUNTS], package.get(GROUP)
        verdict = judge_drops(mean_iou_drops(ours, theirs, groups), TITLE, budgets.max_drop, budgets.confidence)
        classes, most, floor, held = class_ious(ours, theirs, self.labels, groups), budgets.max_class_drop, None, None
        if budgets.min_accuracy:
            value, bounds = mean_iou_bounds(theirs, groups)
            floor = judge_value(value, bounds, drawn_of(package), TITLE, budgets.min_accuracy, budgets.confidence)
        if most:
            each = class_iou_bounds(ours, theirs, groups)
            held = judge_groups(classes, [most] * len(classes), "classes", budgets.confidence, each)
        by_class = self._by_class(ours), self._by_class(theirs)
        return MaskVerification(verdict, *by_class, changed, classes, floor, held)

    def _by_class(self, counts: NDArray[np.int64]) -> Dict[str, Optional[float]]:
        iou = iou_of(counts.sum(axis=0).astype(np.float64))
        return {label: None if np.isnan(iou[k]) else float(iou[k]) for k, label in enumerate(self.labels)}


def _classes(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(logits).all():
        raise PackageError("the model gives NaN or infinite logits; run its self-test, or another onnxruntime")
    classes: NDArray[np.uint8] = logits.argmax(axis=1).astype(np.uint8)
    return classes


def _shown(framing: Framing, height: int, width: int) -> Tuple[slice, slice]:
    """The rows and columns of the frame in which a picture of this size lies."""
    at = place(framing, width, height)
    return slice(max(0, at.top), at.top + at.height), slice(max(0, at.left), at.left + at.width)
