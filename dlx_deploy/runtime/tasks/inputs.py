"""What a package takes: images or texts, and how they become the one array that the model reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import InputError
from ..words import said
from .images import load_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .texts import TextEncoder

__all__ = ["ImageInput", "ImageReader", "InputReader", "TextInput", "TextReader", "reader_for"]

IMAGES, TOKENS = "images", "tokens"


@dataclass(frozen=True)
class ImageInput:
    """Images uint8[N, H, W, C], NHWC, 0..255; ``shape`` is (H, W, C)."""

    shape: Tuple[int, int, int]
    name: str = IMAGES
    noun: str = "images"
    dtype: str = "uint8"
    layout: str = "NHWC"
    pad_id: Optional[int] = None

    @property
    def dims(self) -> Tuple[Any, ...]:
        """The model's dimensions behind the batch: numbers, or names of dynamic ones."""
        return self.shape

    def describe(self, batch: Optional[int]) -> str:
        """The input, for people."""
        return f"uint8[{', '.join(str(n) for n in (batch or 'N', *self.shape))}], NHWC, 0..255"


@dataclass(frozen=True)
class TextInput:
    """Tokens int32[N, L], padded with ``pad_id`` after their ends; ``length`` is fixed, or ``None`` for any.

    ``vocabulary``: how many tokens there are. With ``truncate`` texts of more than ``max_length`` tokens are cut.
    """

    vocabulary: int
    pad_id: int
    max_length: int
    truncate: bool
    length: Optional[int]
    name: str = TOKENS
    noun: str = "texts"
    dtype: str = "int32"
    layout: str = "NL"

    @property
    def dims(self) -> Tuple[Any, ...]:
        """The model's dimension behind the batch: a number, or the name of a dynamic one."""
        return (self.length or "length",)

    def describe(self, batch: Optional[int]) -> str:
        """The input, for people."""
        cut = "longer texts are cut" if self.truncate else "longer texts are refused"
        return f"texts, as tokens int32[{batch or 'N'}, {self.length or 'L'}], at most {self.max_length}; {cut}"


class ImageReader:
    """Image files and arrays as uint8[N, H, W, C]."""

    def __init__(self, spec: ImageInput) -> None:
        self._shape = spec.shape

    def __call__(self, images: Any) -> NDArray[np.uint8]:
        """``images`` as uint8[N, H, W, C]: files are read, a single image gets its batch axis.

        Raises:
            InputError: another dtype or shape, no images, or a file that is missing or cannot be decoded.
            BackendMissing: files were given and Pillow is not here.
        """
        if isinstance(images, (str, os.PathLike)):
            images = [images]
        if isinstance(images, (list, tuple)) and any(isinstance(one, (str, os.PathLike)) for one in images):
            paths = [_path(i, one) for i, one in enumerate(images)]
            return np.stack([load_image(path, *self._shape) for path in paths])
        array = _array(images)
        if array.shape == self._shape:
            array = array[np.newaxis]
        height, width, channels = self._shape
        rule = f"must be uint8[N, {height}, {width}, {channels}], NHWC, 0..255, N at least 1"
        if array.dtype != np.uint8:
            raise InputError(f"images are {array.dtype}{list(array.shape)}; {rule}{_dtype_hint(array)}")
        if array.shape[1:] != self._shape or not len(array):
            raise InputError(f"images are uint8{list(array.shape)}; {rule}{_layout_hint(array.shape, self._shape)}")
        return np.ascontiguousarray(array)


class TextReader:
    """Texts and tokens as int32[N, L]; the tokenizer is opened when the first text comes.

    Raises (when called):
        InputError: no texts, one that is empty or too long, or tokens of another dtype or shape.
        BackendMissing: the tokenizers library is not here. PackageError: the tokenizer is damaged.
    """

    def __init__(self, spec: TextInput, tokenizer: bytes) -> None:
        self._spec, self._tokenizer = spec, tokenizer
        self._encoder: Optional[TextEncoder] = None

    def __call__(self, texts: Any) -> NDArray[np.int32]:
        """``texts`` (a string, several, or tokens int32[N, L]) as int32[N, L]."""
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, np.ndarray) and texts.dtype.kind not in "UO":
            return self._fitted(texts)
        if not isinstance(texts, (list, tuple, np.ndarray)) or (isinstance(texts, np.ndarray) and not texts.ndim):
            raise InputError(
                f"texts are a {type(texts).__name__}; must be a str, a list of them, or tokens int32[N, L]"
            )
        return self._open().encode(list(texts))

    def _open(self) -> TextEncoder:
        if self._encoder is None:
            from .texts import TextEncoder

            s = self._spec
            self._encoder = TextEncoder(self._tokenizer, s.vocabulary, s.pad_id, s.max_length, s.truncate, s.length)
        return self._encoder

    def _fitted(self, tokens: NDArray[Any]) -> NDArray[np.int32]:
        s = self._spec
        if tokens.dtype != np.int32 or tokens.ndim != 2 or not tokens.size or tokens.shape[1] > s.max_length:
            raise InputError(
                f"tokens are {tokens.dtype}{list(tokens.shape)}; must be int32[N, L], N at least 1, L at most "
                f"{s.max_length}; or give texts"
            )
        if tokens.min() < 0 or tokens.max() >= s.vocabulary:
            raise InputError(
                f"tokens run from {tokens.min()} to {tokens.max()}; must be 0 to {s.vocabulary - 1}, of the package's "
                "own tokenizer; or give texts"
            )
        if not s.length or tokens.shape[1] == s.length:
            return np.ascontiguousarray(tokens)
        wide = np.full((len(tokens), s.length), s.pad_id, np.int32)
        wide[:, : tokens.shape[1]] = tokens
        return wide


InputReader = Union[ImageReader, TextReader]


def reader_for(spec: Union[ImageInput, TextInput], tokenizer: Optional[bytes]) -> InputReader:
    """What turns the inputs of a package into arrays."""
    return TextReader(spec, tokenizer or b"") if isinstance(spec, TextInput) else ImageReader(spec)


def _path(number: int, one: Any) -> Any:
    if not isinstance(one, (str, os.PathLike)):
        raise InputError(f"image {number} is a {type(one).__name__} among paths; give all as paths, or all as arrays")
    return one


def _array(images: Any) -> NDArray[Any]:
    """``images`` as an array; of rows of several lengths older numpys make one of objects, which is refused later."""
    try:
        return np.asarray(images)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as e:
        raise InputError(
            f"images cannot be made one array ({said(e)}); must be of one shape and dtype, or paths"
        ) from e


def _dtype_hint(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f":
        return "; give the pixels as they are, normalisation is in the graph: images.astype(numpy.uint8) of 0..255"
    return "; for instance images.astype(numpy.uint8)"


def _layout_hint(shape: Sequence[int], image: Tuple[int, int, int]) -> str:
    if tuple(shape[-3:]) == (image[2], image[0], image[1]):
        return "; these look like NCHW: numpy.moveaxis(images, -3, -1)"
    return "; resize them, or give paths of image files"
