"""Predictions for images: arrays or files in, logits, probabilities, classes and labels out."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence, Tuple, Union

import numpy as np

from .backends import BackendOptions, open_backend
from .errors import InputError, PackageError
from .images import load_image
from .package import INPUT, OUTPUT, Package, open_package

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Predictions", "Predictor", "load"]

_log = logging.getLogger(__name__)

DEFAULTS = BackendOptions()
PathLike = Union[str, "os.PathLike[str]"]
NDARRAY = np.ndarray
UINT8 = np.dtype(np.uint8)


class Predictions:
    """What a model says about N images; everything but the logits is computed when it is asked for.

    ``logits``: float32[N, classes], owned by the caller: no later call writes to it.
    """

    __slots__ = ("_names", "logits")

    def __init__(self, logits: NDArray[np.float32], names: Tuple[str, ...]) -> None:
        self.logits = logits
        self._names = names

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images: {', '.join(self.labels[:8])}{', …' if len(self) > 8 else ''})"

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The softmax of the logits: float32[N, classes], 0..1, each row sums to 1."""
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each image: int64[N], 0..classes - 1; the first one of equals."""
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    @property
    def labels(self) -> List[str]:
        """The class name of each image."""
        return [self._names[i] for i in self.classes]

    def top(self, k: int) -> List[List[Tuple[str, float]]]:
        """Per image the ``k`` most probable classes (all, if there are fewer), best first, as (label, probability).

        Raises:
            InputError: ``k`` is under 1.
        """
        if k < 1:
            raise InputError(f"top is {k}; must be 1 or more")
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        probabilities = self.probabilities
        pairs = ((row, probabilities[n]) for n, row in enumerate(best))
        return [[(self._names[i], float(p[i])) for i in row] for row, p in pairs]


class Predictor:
    """A package with its backend open; ``predict`` may be called from several threads at once.

    ``say`` hears which backend was chosen and how an engine's build goes; by default that is logged, a fallback as a
    warning.

    Raises:
        PackageError: the model cannot be loaded, or its input or output is not what the package says.
        BackendMissing: no backend of the package's, or not the one asked for, is here.
        EngineError: an engine cannot be built, or must not be.
    """

    def __init__(
        self, package: Package, options: BackendOptions = DEFAULTS, say: Optional[Callable[[str], None]] = None
    ) -> None:
        self.package = package
        self.backend = open_backend(package, options, say or _log.info)
        if self.backend.skipped and say is None:
            _log.warning(self.backend.describe())
        elif self.backend.chosen and say is not None:
            say(self.backend.describe())
        if self.backend.name.startswith("onnxruntime"):
            _check_model(self.backend.session, package)
        self._run = self.backend.session.run
        self._shape = package.shape
        self._batch = package.batch
        self._frame = (package.batch or 1, *package.shape)
        self._names = package.labels
        self._outputs = [OUTPUT]

    def predict(self, images: Union[NDArray[np.uint8], PathLike, Sequence[PathLike]]) -> Predictions:
        """The predictions for ``images``: uint8[N, H, W, C] or [H, W, C], NHWC, 0..255, or image files to decode.

        ``images`` is only read, and not kept. A model of fixed batch size is run in blocks of it.

        Raises:
            InputError: another dtype or shape, no images, or a file that is missing or cannot be decoded.
            BackendMissing: files were given and Pillow is not here.
        """
        # The path of every frame of a stream: as few steps as can be, then ONNX Runtime.
        if type(images) is NDARRAY and images.dtype is UINT8 and images.shape == self._frame:
            return Predictions(self._run(self._outputs, {INPUT: images})[0], self._names)
        return Predictions(self._logits(self.decode(images)), self._names)

    def decode(self, images: Any) -> NDArray[np.uint8]:
        """``images`` as uint8[N, H, W, C]: files are read, a single image gets its batch axis.

        Raises:
            InputError, BackendMissing: as ``predict``.
        """
        if isinstance(images, (str, os.PathLike)):
            images = [images]
        if isinstance(images, (list, tuple)) and images and isinstance(images[0], (str, os.PathLike)):
            return np.stack([load_image(path, *self._shape) for path in images])
        array = np.asarray(images)
        if array.shape == self._shape:
            array = array[np.newaxis]
        height, width, channels = self._shape
        rule = f"must be uint8[N, {height}, {width}, {channels}], NHWC, 0..255, N at least 1"
        if array.dtype != UINT8:
            raise InputError(f"images are {array.dtype}{list(array.shape)}; {rule}{_dtype_hint(array)}")
        if array.shape[1:] != self._shape or not len(array):
            raise InputError(f"images are uint8{list(array.shape)}; {rule}{_layout_hint(array.shape, self._shape)}")
        return array

    def _logits(self, images: NDArray[np.uint8]) -> Any:
        images = np.ascontiguousarray(images, UINT8)
        if self._batch is None:
            return self._run(self._outputs, {INPUT: images})[0]
        blocks = []
        for start in range(0, len(images), self._batch):
            block = images[start : start + self._batch]
            padding = np.zeros((self._batch - len(block), *self._shape), UINT8)
            blocks.append(self._run(self._outputs, {INPUT: np.concatenate([block, padding])})[0][: len(block)])
        return np.concatenate(blocks)


def load(path: PathLike, threads: int = 0, backend: Optional[str] = None, build: bool = True) -> Predictor:
    """A predictor for the package at ``path``, every digest checked first; the options are those of ``BackendOptions``.

    Raises:
        PackageError, BackendMissing, EngineError: as ``Predictor``, and a package that is missing or damaged.
    """
    return Predictor(open_package(path), BackendOptions(backend, threads, build))


def _check_model(session: Any, package: Package) -> None:
    batch = package.batch
    wanted = [(INPUT, "tensor(uint8)", package.shape), (OUTPUT, "tensor(float)", (len(package.labels),))]
    ends = [session.get_inputs(), session.get_outputs()]
    for i, (name, kind, shape) in enumerate(wanted):
        found = ends[i]
        if [x.name for x in found] != [name] or found[0].type != kind or tuple(found[0].shape[1:]) != shape:
            seen = ", ".join(f"{x.name}: {x.type}{x.shape}" for x in found)
            raise PackageError(f"the model has {seen}; must have {name}: {kind}['batch', {', '.join(map(str, shape))}]")
    first = ends[0][0].shape[0]
    if (first if isinstance(first, int) else None) != batch:
        raise PackageError(f"the model's batch size is {first!r}, the package says {batch or 'any'}; they must agree")


def _dtype_hint(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f":
        return "; give the pixels as they are, normalisation is in the graph: images.astype(numpy.uint8) of 0..255"
    return "; for instance images.astype(numpy.uint8)"


def _layout_hint(shape: Tuple[int, ...], image: Tuple[int, int, int]) -> str:
    if shape[-3:] == (image[2], image[0], image[1]):
        return "; these look like NCHW: numpy.moveaxis(images, -3, -1)"
    return "; resize them, or give paths of image files"
