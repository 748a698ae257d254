"""The parts of a package, read strictly: fields of ``package.json`` by path, arrays from ``.npy`` members."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import PackageError
from ..words import shortened
from .archive import INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Fields", "npy_array", "npy_bytes"]

KINDS = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_HEADER = re.compile(
    r"\{ *'descr': *'(?P<descr>[<>|=]?[A-Za-z][0-9]{0,3})' *, *'fortran_order': *(?P<fortran>True|False) *, *"
    r"'shape': *\((?P<shape>(?:[0-9]{1,18}, *)*(?:[0-9]{1,18})?)\) *,? *\} *\n?"
)


class Fields:
    """Typed access to ``package.json``: a wrong field is an error that names its path and value."""

    def __init__(self, meta: Mapping[str, Any], origin: str) -> None:
        self._meta, self._origin = meta, origin

    def get(self, path: str, kind: type) -> Any:
        """The value at ``path`` (parts joined by dots), of type ``kind``."""
        value = self.at(path)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(path, value, f"must be of type {kind.__name__}, {KINDS[kind]}")
        return value

    def number(self, path: str, most: float = 1e30) -> float:
        """The number at ``path``, not negative and at most ``most``."""
        value = self.at(path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
            raise self.wrong(path, value, f"must be a finite number from 0 to {most:g}")
        return float(value)

    def fraction_or(self, path: str, default: float) -> float:
        """The number at ``path``, from 0 and under 1, or ``default`` where an older writer left it out."""
        return self.fraction(path, 0) if self.has(path) else default

    def fraction(self, path: str, least: float) -> float:
        """The number at ``path``, at least ``least`` and under 1."""
        value = self.number(path)
        if not least <= value < 1:
            raise self.wrong(path, value, f"must be at least {least:g} and under 1")
        return value

    def count(self, path: str, least: int, most: int) -> int:
        """The whole number at ``path``, at least ``least`` and at most ``most``."""
        value: int = self.get(path, int)
        if not least <= value <= most:
            raise self.wrong(path, value, f"must be {least} to {most}")
        return value

    def exactly(self, path: str, value: Any) -> None:
        """Refuses any other value at ``path`` than this one."""
        if self.at(path) != value or isinstance(self.at(path), bool):
            raise self.wrong(path, self.at(path), f"must be {value!r}")

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
        if len(shape) != 2 or any(x is None and shape[i] != ("batch", "length")[i] for i, x in enumerate(found)):
            raise self.wrong("input.shape", shape, 'must be ["batch" or a size, "length" or a size]')
        return found[0], found[1]

    def at(self, path: str) -> Any:
        """The value at ``path``, ``None`` where there is none."""
        value: Any = self._meta
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def has(self, path: str) -> bool:
        """Whether there is a value at ``path``, be it null; nothing is inside what is no table."""
        *parents, last = path.split(".")
        table = self.at(".".join(parents)) if parents else self._meta
        return isinstance(table, dict) and last in table

    def wrong(self, path: str, value: Any, rule: str) -> PackageError:
        """The error for ``value`` at ``path``."""
        return PackageError(f"{self._origin}: {INDEX}: {path} is {shortened(value)}; {rule}")


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
    data = files[name]
    found, fortran, kind, start = _npy_header(data, f"{origin}: {name!r}")
    fits = len(found) == len(shape) and all(shape[i] in (None, n) for i, n in enumerate(found))
    if fortran or kind != np.dtype(dtype) or not fits:
        raise PackageError(
            f"{origin}: {name!r} is {kind}{list(found)}{' in Fortran order' if fortran else ''}; "
            f"must be {np.dtype(dtype)}{list(shape)} in C order"
        )
    size = kind.itemsize
    for n in found:
        size *= n
    if size != len(data) - start:
        raise PackageError(
            f"{origin}: {name!r} has not the bytes that its header says: {size} for {kind}{list(found)}, and there are "
            f"{len(data) - start}"
        )
    return np.frombuffer(data, kind, offset=start).reshape(found)


def _npy_header(data: bytes, what: str) -> Tuple[Tuple[int, ...], bool, np.dtype[Any], int]:
    """The shape, whether it is in Fortran order, the dtype, and where the header ends.

    Read by a pattern: numpy evaluates it as a Python literal, in which a length may be ``True``.
    """
    if data[:8] != NPY_MAGIC:
        raise PackageError(f"{what} is not a .npy file (only version 1.0 is read)")
    end = 10 + int.from_bytes(data[8:10], "little")
    match = NPY_HEADER.fullmatch(data[10:end].decode("latin-1"))
    if match is None or end > len(data):
        raise PackageError(f"{what} is not a .npy file (its header is {shortened(data[10:end])})")
    try:
        kind = np.dtype(match["descr"])
    except (TypeError, ValueError, SyntaxError) as e:
        raise PackageError(f"{what} is not a .npy file (its dtype is {match['descr']!r})") from e
    shape = tuple(int(n) for n in re.findall("[0-9]+", match["shape"]))
    return shape, match["fortran"] == "True", kind, end
