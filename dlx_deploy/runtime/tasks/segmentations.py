"""What a network of masks says of images: a map of classes each, in the frame that it reads and as large as it was."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .framing import Framing, place, unframed
from .mask_files import IGNORED, draw_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Segmentations"]


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

    def drawn(self, number: int) -> str:
        """The mask of one image as a PNG in base64, of the classes' colours and clear where the frame cut it off.

        Raises:
            BackendMissing: Pillow is not here.
        """
        png = draw_mask(self.classes[number], self._framing, self.sizes[number])
        return b64encode(png).decode("ascii")

    def to_dict(self) -> Dict[str, Any]:
        """The shares of the classes, JSON-ready; the maps themselves are ``classes``."""
        return {"shares": self.shares()}


def _shown(framing: Framing, height: int, width: int) -> Tuple[slice, slice]:
    """The rows and columns of the frame in which a picture of this size lies."""
    at = place(framing, width, height)
    return slice(max(0, at.top), at.top + at.height), slice(max(0, at.left), at.left + at.width)
