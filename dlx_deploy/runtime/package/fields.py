"""The parts of a package, read strictly: fields of ``package.json`` by path, arrays from ``.npy`` members."""

from __future__ import annotations

import io
import re
from typing import Mapping, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from ..errors import PackageError
from ..tasks.arrays import Tensor, Tolerance
from ..untyped import Array, DType, JsonTable
from ..words import shortened
from .archive import INDEX

__all__ = ["Fields", "npy_array", "npy_bytes"]

T = TypeVar("T")
KINDS: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_HEADER = re.compile(
    r"\{ *'descr': *'(?P<descr>[<>|=]?[A-Za-z][0-9]{0,3})' *, *'fortran_order': *(?P<fortran>True|False) *, *"
    r"'shape': *\((?P<shape>(?:[0-9]{1,18}, *)*(?:[0-9]{1,18})?)\) *,? *\} *\n?"
)


class Fields:
    """Typed access to ``package.json`` and the files beside it: a wrong field is an error with its path and value.

    A path's parts are joined by dots, places in a list are numbers: ``inputs.0.shape``. ``renamed``: the beginnings of
    paths that an older file spells otherwise, and how.
    """

    def __init__(
        self,
        meta: JsonTable,
        origin: str,
        files: Optional[Mapping[str, bytes]] = None,
        renamed: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._meta, self._origin = meta, origin
        self._files, self._renamed = files or {}, renamed or {}

    def get(self, path: str, kind: Type[T]) -> T:
        """The value at ``path``, of type ``kind``."""
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
        value = self.get(path, int)
        if not least <= value <= most:
            raise self.wrong(path, value, f"must be {least} to {most}")
        return value

    def exactly(self, path: str, value: object) -> None:
        """Refuses any other value at ``path`` than this one."""
        if self.at(path) != value or isinstance(self.at(path), bool):
            raise self.wrong(path, self.at(path), f"must be {value!r}")

    def tensor(self, path: str) -> Tensor:
        """The named input or output at ``path``, a table of name, dtype and shape, and layout if it has one."""
        table, shape = self.get(path, dict), self.get(f"{path}.shape", list)
        if not shape or not (shape[0] == "batch" or _is_size(shape[0])) or not all(map(_is_dim, shape[1:])):
            raise self.wrong(f"{path}.shape", shape, 'must be ["batch" or a size, …], each a size or a name')
        layout = self.get(f"{path}.layout", str) if "layout" in table else ""
        return Tensor(self.get(f"{path}.name", str), self.get(f"{path}.dtype", str), tuple(shape[1:]), layout)

    def batch(self, path: str) -> Optional[int]:
        """The fixed batch size in the shape at ``path``, ``None`` if any is fine."""
        first = self.get(path, list)[0]
        return first if isinstance(first, int) else None

    def tensors(self, path: str, wanted: Sequence[Tensor], batch: Optional[int]) -> None:
        """Refuses other inputs or outputs at ``path`` than the ``wanted`` ones, at this batch size."""
        if len(self.get(path, list)) != len(wanted):
            raise self.wrong(path, self.at(path), f"must be {[tensor.to_dict(batch) for tensor in wanted]!r}")
        for i, tensor in enumerate(wanted):
            self.exactly(f"{path}.{i}", tensor.to_dict(batch))

    def tolerance(self, path: str) -> Tolerance:
        """The tolerance at ``path``, a table of ``atol``, ``rtol`` and, if it has one, ``exact_atol``."""
        exact = f"{path}.exact_atol"
        return Tolerance(
            self.number(f"{path}.atol", 1e6),
            self.fraction(f"{path}.rtol", 0),
            self.number(exact, 1e6) if self.has(exact) else None,
        )

    def member(self, name: str) -> bytes:
        """The file ``name`` of the package."""
        if name not in self._files:
            schema = self.at("schema")
            raise PackageError(
                f"{self._origin}: {name!r} is missing; a package of schema {schema} has it: build it again"
            )
        return self._files[name]

    def array(self, name: str, tensor: Tensor, count: Optional[int] = None) -> Array:
        """The ``.npy`` file ``name`` of the package, of the tensor's dtype and shape and ``count`` rows."""
        data = {name: self.member(name)}
        return npy_array(data, name, self._origin, np.dtype(tensor.dtype), (count, *tensor.sizes))

    def damaged(self, name: str, why: str) -> PackageError:
        """The error for what is wrong with the file ``name``."""
        return PackageError(f"{self._origin}: {name!r} {why}")

    def at(self, path: str) -> object:
        """The value at ``path``, ``None`` where there is none."""
        value: object = self._meta
        for part in path.split("."):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        return value

    def has(self, path: str) -> bool:
        """Whether there is a value at ``path``, be it null; nothing is inside what is no table."""
        *parents, last = path.split(".")
        table = self.at(".".join(parents)) if parents else self._meta
        return isinstance(table, dict) and last in table

    def wrong(self, path: str, value: object, rule: str) -> PackageError:
        """The error for ``value`` at ``path``."""
        for new, old in self._renamed.items():
            path = old + path[len(new) :] if path.startswith(new) else path
        return PackageError(f"{self._origin}: {INDEX}: {path} is {shortened(value)}; {rule}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_dim(value: object) -> bool:
    return _is_size(value) or isinstance(value, str)


def npy_bytes(array: Array) -> bytes:
    """``array`` as a ``.npy`` file, version 1.0, C order, no pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def npy_array(
    files: Mapping[str, bytes], name: str, origin: str, dtype: DType, shape: Sequence[Optional[int]]
) -> Array:
    """The ``.npy`` member as a read-only view of its bytes; no allocation follows what its header claims.

    Raises:
        PackageError: no ``.npy`` file, or another dtype, order or shape (``None``: any size).
    """
    data = files[name]
    sizes, fortran, kind, start = _npy_header(data, f"{origin}: {name!r}")
    fits = len(sizes) == len(shape) and all(shape[i] in (None, n) for i, n in enumerate(sizes))
    if fortran or kind != dtype or not fits:
        raise PackageError(
            f"{origin}: {name!r} is {kind}{list(sizes)}{' in Fortran order' if fortran else ''}; "
            f"must be {dtype}{list(shape)} in C order"
        )
    size = kind.itemsize
    for n in sizes:
        size *= n
    if size != len(data) - start:
        raise PackageError(
            f"{origin}: {name!r} has not the bytes that its header says: {size} for {kind}{list(sizes)}, and there are "
            f"{len(data) - start}"
        )
    return np.frombuffer(data, kind, offset=start).reshape(sizes)


def _npy_header(data: bytes, what: str) -> Tuple[Tuple[int, ...], bool, DType, int]:
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
