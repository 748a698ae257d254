"""What models answer, sample by sample, in words and numbers: what two of them are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.tasks.task import Outputs

__all__ = ["Told", "all_told", "told_classes", "told_masks"]

_NEVER = 255
"""In masks: pixels that count for nothing."""


@dataclass(frozen=True)
class Told:
    """Of each sample how right the answer is (``right``, float64[N], 0..1) and how sure (``confidence``, float64[N]),
    the ``answers`` and what was ``wanted`` in words.

    ``confusion``: int64[K, K], how often the class of the row was answered by that of the column, by samples or pixels.
    ``names``: of the K classes. ``turned``: a sample whose ``right`` changes by this much has flipped.
    """

    right: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    answers: tuple[str, ...]
    wanted: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    names: tuple[str, ...]
    turned: float


def all_told(parts: Sequence[Told]) -> Told:
    """What was told of several batches, as of one."""
    import numpy as np

    first = parts[0]
    return Told(
        right=np.concatenate([part.right for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        answers=tuple(answer for part in parts for answer in part.answers),
        wanted=tuple(wanted for part in parts for wanted in part.wanted),
        confusion=np.sum([part.confusion for part in parts], axis=0),
        names=first.names,
        turned=first.turned,
    )


def told_classes(outputs: Arrays, targets: Arrays, device: Outputs) -> Told:
    """Of logits float32[N, K] and labels int64[N]; the confidence is the largest probability."""
    import numpy as np

    from dlx_deploy.runtime.tasks.classes import LABEL, LOGITS

    logits, wanted = outputs[LOGITS], targets[LABEL]
    names: tuple[str, ...] = tuple(getattr(device, "labels"))  # noqa: B009  # of classes alone
    answered = logits.argmax(axis=1)
    return Told(
        right=(answered == wanted).astype(np.float64),
        confidence=_largest_share(logits),
        answers=tuple(names[k] for k in answered),
        wanted=tuple(names[k] for k in wanted),
        confusion=_counted(wanted, answered, len(names)),
        names=names,
        turned=1.0,
    )


def told_masks(outputs: Arrays, targets: Arrays, device: Outputs) -> Told:
    """Of logits float32[N, K, H, W] and masks uint8[N, H, W]; right is the share of pixels that count and are right."""
    import numpy as np

    from dlx_deploy.runtime.tasks.classes import LOGITS
    from dlx_deploy.runtime.tasks.masks import MASK

    logits, masks = outputs[LOGITS], targets[MASK]
    names: tuple[str, ...] = tuple(getattr(device, "labels"))  # noqa: B009  # of classes alone
    answered, counts = logits.argmax(axis=1), masks != _NEVER
    whole = np.maximum(counts.sum(axis=(1, 2)), 1)
    right = ((answered == masks) & counts).sum(axis=(1, 2)) / whole
    return Told(
        right=right,
        confidence=_largest_share(logits).reshape(len(logits), -1).mean(axis=1),
        answers=tuple(f"{share:.1%} of pixels right" for share in right),
        wanted=tuple("" for _ in right),
        confusion=_counted(masks[counts], answered[counts], len(names)),
        names=names,
        turned=0.1,
    )


def _largest_share(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The largest probability along axis 1."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    largest: npt.NDArray[np.float64] = 1 / shifted.sum(axis=1)
    return largest


def _counted(wanted: npt.NDArray[np.int64], answered: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    import numpy as np

    cells = wanted.astype(np.int64) * classes + answered
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
