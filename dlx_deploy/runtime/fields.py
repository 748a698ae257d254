"""The parts of a package read strictly: fields of ``package.json`` by path, arrays from ``.npy`` members."""

from __future__ import annotations

import io
import tokenize
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple

import numpy as np

from .archive import INDEX
from .errors import PackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Fields", "npy_array", "npy_bytes"]


class Fields:
    """Typed access to ``package.json``: a wrong field is an error that names its path and value."""

    def __init__(self, meta: Mapping[str, Any], origin: str) -> None:
        self._meta, self._origin = meta, origin

    def get(self, path: str, kind: type) -> Any:
        """The value at ``path`` (parts joined by dots), of type ``kind``."""
        value = self._at(path)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(path, value, f"must be of type {kind.__name__}")
        return value

    def number(self, path: str) -> float:
        """The number at ``path``, finite and not negative."""
        value = self._at(path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise self.wrong(path, value, "must be a finite number from 0")
        return float(value)

    def number_or(self, path: str, default: float) -> float:
        """The number at ``path``, or ``default`` where an older writer left it out."""
        return default if self._at(path) is None else self.number(path)

    def exactly(self, path: str, value: Any) -> None:
        """Refuses any other value at ``path`` than this one."""
        if self._at(path) != value:
            raise self.wrong(path, self._at(path), f"must be {value!r}")

    def labels(self) -> Tuple[str, ...]:
        """The class names, at least two, all different."""
        labels = self.get("labels", list)
        if len(labels) < 2 or not all(isinstance(x, str) for x in labels) or len(set(labels)) < len(labels):
            raise self.wrong("labels", labels, "must be at least two different strings")
        return tuple(labels)

    def image_shape(self) -> Tuple[Tuple[int, int, int], Optional[int]]:
        """(H, W, C) of one image, and the fixed batch size or ``None``."""
        shape = self.get("input.shape", list)
        sizes = [x for x in shape if isinstance(x, int) and not isinstance(x, bool) and x > 0]
        if len(shape) != 4 or len(sizes) + (shape[0] == "batch") != 4:
            raise self.wrong("input.shape", shape, 'must be ["batch" or a size, height, width, channels]')
        return (sizes[-3], sizes[-2], sizes[-1]), (None if shape[0] == "batch" else sizes[0])

    def token_shape(self) -> Tuple[Optional[int], Optional[int]]:
        """The fixed batch size and the fixed length of token sequences, or ``None``."""
        shape = self.get("input.shape", list)
        found = [x if isinstance(x, int) and not isinstance(x, bool) and x > 0 else None for x in shape]
        names = [x for x in shape if isinstance(x, str)]
        if len(shape) != 2 or any(x is None and shape[i] != ("batch", "length")[i] for i, x in enumerate(found)):
            raise self.wrong("input.shape", shape, f'must be ["batch" or a size, "length" or a size], not {names}')
        return found[0], found[1]

    def _at(self, path: str) -> Any:
        value: Any = self._meta
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def wrong(self, path: str, value: Any, rule: str) -> PackageError:
        """The error for ``value`` at ``path``."""
        return PackageError(f"{self._origin}: {INDEX}: {path} is {value!r}; {rule}")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """``array`` as a ``.npy`` file, version 1.0, C order, no pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def npy_array(files: Mapping[str, bytes], name: str, origin: str, dtype: Any, shape: Sequence[Optional[int]]) -> Any:
    """The ``.npy`` member as a read-only view of its bytes; no allocation follows what its header claims.

    Raises:
        PackageError: no ``.npy`` file, or another dtype, order or shape (``None``: any size).
    """
    stream = io.BytesIO(files[name])
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("only version 1.0 is read")
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, tokenize.TokenError) as e:
        raise PackageError(f"{origin}: {name!r} is not a .npy file ({e})") from e
    fits = len(found) == len(shape) and all(shape[i] in (None, n) for i, n in enumerate(found))
    if fortran or kind != np.dtype(dtype) or not fits:
        raise PackageError(
            f"{origin}: {name!r} is {kind}{list(found)}{' in Fortran order' if fortran else ''}; "
            f"must be {np.dtype(dtype)}{list(shape)} in C order"
        )
    try:
        return np.frombuffer(files[name], kind, offset=stream.tell()).reshape(found)
    except ValueError as e:
        raise PackageError(f"{origin}: {name!r} has not the bytes that its header says ({e})") from e
