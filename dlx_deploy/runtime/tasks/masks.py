"""Answers that are a class for each pixel, as a network gives them and as they are judged: logits of every class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError, PackageError, TeacherNeeded
from ..records import record, replace
from .arrays import Agreement, Arrays, Tensor, Tolerance, digests_of, within
from .classes import LOGITS
from .features import grid_steps
from .framing import Framing
from .grouped import group_columns, group_of
from .judging import OWN, Judging
from .mask_counts import COUNTS, TITLE, confusion_counts
from .mask_files import IGNORED, mask_paths, palette, write_mask
from .segmentations import Segmentations
from .sketches import hashed
from .task import Budgets, PredictionRow, PredictOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..statistics.groups import Judged
    from ..statistics.resampled import Bounds
    from .mask_verdicts import MaskVerification
    from .slices import SliceBudgets

__all__ = ["MASK", "Masks"]

MASK = "mask"  # the target
DECIDED = 64
"""Pixels of a mask that a parity table knows the class of."""
MOST_SHARES = 32  # classes whose shares a drift watch knows
MASK_DIGEST = "mask_digest"  # a column of the reference table


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
        """These, judged by a function of the user's, or by whole groups of images.

        Raises:
            InputError: by another metric.
        """
        if not judging.metric:
            return replace(self, judging=judging)
        from .metric_names import is_user_metric_name
        from .user_masks import UserMasks

        if not is_user_metric_name(judging.metric):
            raise InputError(
                f"metric is {judging.metric!r}; masks are judged by {TITLE}, or a function, 'FILE.py:FUNCTION'"
            )
        return UserMasks(self.labels, self.framing, self.ignore, judging=judging)

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
        """The ``options.top`` largest classes of each image; with ``options.out`` its mask and overlay as files, with
        ``options.drawn`` its mask as a picture in the row.

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
            if options.drawn:
                data.update(drawn=answers.drawn(i), colours={label: self._colour(label) for label in top})
            if paths:
                picture = options.given[i] if options.given else named[i]
                write_mask(answers.classes[i], self.framing, picture, paths[i])
                data.update(mask=paths[i][0], overlay=paths[i][1])
                cells.append(paths[i][0])
            rows.append(PredictionRow(data, cells))
        return rows

    def _colour(self, label: str) -> str:
        """That of a class in a mask, as ``#rrggbb``."""
        return "#" + bytes(palette()[self.labels.index(label)]).hex()

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
        counts = self.counted(_classes(outputs[LOGITS]), targets)
        return {MASK_DIGEST: digests_of(targets[MASK]), **counts}

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
        return self.counted(_classes(outputs[LOGITS]), targets)

    def counted(self, classes: NDArray[np.uint8], targets: Arrays) -> Arrays:
        """The statistic of answers that are these ``classes``, uint8[n, H, W]."""
        return {COUNTS: confusion_counts(classes, targets[MASK], len(self.labels)), **group_of(targets)}

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> MaskVerification:
        """A paired bootstrap over images of the mean intersection over union, its floor, and that of each class, if
        there are budgets of these.

        Raises:
            InputError: a budget out of range, or one of changed answers.
        """
        from .mask_verdicts import judge_masks  # what predicts judges nothing

        return judge_masks(teacher, package, self.labels, budgets, changed)

    def by_slice(
        self, teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]], asked: SliceBudgets
    ) -> Tuple[Tuple[Judged, ...], Tuple[Bounds, ...]]:
        """The mean intersection over union of each slice, and bounds of its drop where it has a budget."""
        from .mask_slices import MEAN_IOU
        from .slice_scores import score_slices

        return score_slices(MEAN_IOU, (teacher, package), columns, asked.of)


def _classes(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(logits).all():
        raise PackageError("the model gives NaN or infinite logits; run its self-test, or another onnxruntime")
    classes: NDArray[np.uint8] = logits.argmax(axis=1).astype(np.uint8)
    return classes
