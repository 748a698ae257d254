"""The protocol's tensors as arrays, and back: as JSON, or as bytes behind it (the binary tensor data extension)."""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import math
import struct
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..records import record
from ..untyped import Array
from ..words import shortened
from .messages import Refused

__all__ = [
    "BYTES",
    "DATATYPES",
    "Described",
    "InputTensor",
    "bytes_tensor",
    "datatype_of",
    "describe_tensor",
    "read_tensor",
    "tensor_json",
]

BYTES = "BYTES"
DATATYPES: Dict[str, str] = {
    "BOOL": "bool",
    **{f"{kind.upper()}{bits}": f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
"""numpy's dtypes by the protocol's names."""
NAMES = {np.dtype(dtype): name for name, dtype in DATATYPES.items()}
MAX_RANK = 16
MAX_SIZE = 2**31 - 1  # of a dimension
LENGTH = struct.Struct("<I")
PARAMETERS = frozenset(("binary_data_size", "content_type"))
BASE64 = "base64"


@record
class Described:
    """An entry of ``inputs``: ``size`` bytes behind the JSON, ``None``: ``data`` in it, its strings by ``coding``."""

    name: str
    datatype: str
    shape: Tuple[int, ...]
    size: Optional[int]
    data: object
    coding: object


@record
class InputTensor:
    """A tensor of a request. ``values``: an array of ``shape``, or for BYTES the elements, as many as there are."""

    name: str
    datatype: str
    shape: Tuple[int, ...]
    values: Union[Array, List[bytes]]


@functools.lru_cache(maxsize=64)
def datatype_of(dtype: str) -> str:
    """What the protocol calls numpy's ``dtype``."""
    return NAMES[np.dtype(dtype)]


def describe_tensor(described: object) -> Described:
    """What an entry of ``inputs`` says.

    Raises:
        Refused: 400: the name or the rule, and what was seen.
    """
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise Refused(400, "inputs holds what is no tensor; each must be a table with name, shape, datatype and data")
    name = shortened(described["name"])
    parameters = described.get("parameters", {})
    if not isinstance(parameters, Mapping) or not PARAMETERS.issuperset(parameters):
        rule = f"an input takes these: {', '.join(sorted(PARAMETERS))}"
        raise Refused(400, f"input {name} has parameters {shortened(parameters)}; {rule}")
    datatype = described.get("datatype")
    if not isinstance(datatype, str) or (datatype != BYTES and datatype not in DATATYPES):
        known = ", ".join((*DATATYPES, BYTES))
        raise Refused(400, f"input {name} is of datatype {shortened(datatype)}; must be one of {known}")
    shape, size = _shape(name, described.get("shape")), parameters.get("binary_data_size")
    if (size is None) == ("data" not in described):
        raise Refused(400, f"input {name} must have either data, or the parameter binary_data_size and its bytes")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise Refused(400, f"input {name} has binary_data_size {shortened(size)}; must be a number of bytes")
    return Described(described["name"], datatype, shape, size, described.get("data"), parameters.get("content_type"))


def read_tensor(described: Described, rest: memoryview) -> Tuple[InputTensor, memoryview]:
    """The tensor itself, and what of ``rest``, the bytes behind the JSON, it leaves.

    An array shares its memory with ``rest`` where it came as bytes.

    Raises:
        Refused: 400: the name or the rule, and what was seen.
    """
    name, datatype, shape = shortened(described.name), described.datatype, described.shape
    if described.size is None:
        values = _from_json(name, datatype, shape, described.data, described.coding)
    else:
        if described.size > len(rest):
            raise Refused(400, f"input {name} has binary_data_size {described.size}; {len(rest)} bytes are left for it")
        values, rest = _from_bytes(name, datatype, shape, rest[: described.size]), rest[described.size :]
    return InputTensor(described.name, datatype, shape, values), rest


def tensor_json(name: str, array: Array, binary: bool) -> Tuple[Dict[str, object], Tuple[memoryview, ...]]:
    """``array`` as an entry of ``outputs``, and its bytes where they go behind the JSON.

    Raises:
        Refused: 500: JSON has no NaN or infinite numbers.
    """
    entry: Dict[str, object] = {"name": name, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
    if binary:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return {**entry, "parameters": {"binary_data_size": little.nbytes}}, (_bytes_of(little),)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(500, f"output {name} holds NaN or infinite numbers, which JSON has not; ask for binary_data")
    return {**entry, "data": array.reshape(-1).tolist()}, ()


def bytes_tensor(name: str, texts: Sequence[str], binary: bool) -> Tuple[Dict[str, object], Tuple[memoryview, ...]]:
    """``texts`` as an entry of ``outputs``, BYTES [N], and its bytes where they go behind the JSON."""
    entry: Dict[str, object] = {"name": name, "datatype": BYTES, "shape": [len(texts)]}
    if not binary:
        return {**entry, "data": list(texts)}, ()
    encoded = [text.encode("utf-8", "replace") for text in texts]
    packed = b"".join(LENGTH.pack(len(one)) + one for one in encoded)
    return {**entry, "parameters": {"binary_data_size": len(packed)}}, (memoryview(packed),)


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _shape(name: str, shape: object) -> Tuple[int, ...]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_RANK or not all(_is_size(n) for n in shape):
        raise Refused(400, f"input {name} has shape {shortened(shape)}; must be a list of 1 or more sizes, each over 0")
    return tuple(shape)


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_SIZE


def _from_bytes(name: str, datatype: str, shape: Tuple[int, ...], data: memoryview) -> Union[Array, List[bytes]]:
    if datatype == BYTES:
        return _elements(name, math.prod(shape), data)
    dtype = np.dtype(DATATYPES[datatype]).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise Refused(400, f"input {name} has {len(data)} bytes; {datatype}{list(shape)} has {wanted}")
    if datatype == "BOOL" and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise Refused(400, f"input {name} is of datatype BOOL and holds other bytes than 0 and 1")
    array = np.frombuffer(data, dtype).reshape(shape)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native if native.flags.aligned else native.copy()


def _elements(name: str, count: int, data: memoryview) -> List[bytes]:
    """The elements of a BYTES tensor: each its length, uint32, and then its bytes."""
    elements: List[bytes] = []
    start = 0
    while start < len(data):
        begin = start + LENGTH.size
        size = LENGTH.unpack_from(data, start)[0] if begin <= len(data) else 0
        if begin + size > len(data) or len(elements) == count:
            break
        elements.append(bytes(data[begin : begin + size]))
        start = begin + size
    if start != len(data) or len(elements) != count:
        raise Refused(
            400, f"input {name} has {len(data)} bytes that are not {count} elements, each its length (4 bytes) and data"
        )
    return elements


def _from_json(
    name: str, datatype: str, shape: Tuple[int, ...], data: object, coding: object
) -> Union[Array, List[bytes]]:
    if not isinstance(data, list):
        raise Refused(400, f"input {name} has data of another kind than a list")
    if datatype == BYTES:
        return _texts(name, math.prod(shape), _flat(name, shape, data), coding)
    if coding is not None:
        raise Refused(400, f"input {name} has content_type {shortened(coding)}, which is for BYTES alone")
    dtype, elements = np.dtype(DATATYPES[datatype]), _flat(name, shape, data)
    if dtype.kind != "b" and bool in set(map(type, elements)):  # among numbers numpy takes true for 1
        raise Refused(400, f"input {name} is of datatype {datatype} and holds true or false; nothing is converted")
    try:
        array = np.array(elements)
    except (ValueError, OverflowError, MemoryError) as e:
        raise Refused(400, f"input {name} has data that is no array of numbers") from e
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise Refused(400, f"input {name} is of datatype {datatype} and its data is not; nothing is converted")
    if array.size != math.prod(shape):
        raise Refused(400, f"input {name} has {array.size} numbers; shape {list(shape)} has {math.prod(shape)}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "ui" and (int(array.min()) < np.iinfo(dtype).min or int(array.max()) > np.iinfo(dtype).max):
        raise Refused(400, f"input {name} holds numbers from {array.min()} to {array.max()}, too large for {datatype}")
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise Refused(400, f"input {name} holds numbers that are too large for {datatype}")
    return cast.reshape(shape)


def _flat(name: str, shape: Tuple[int, ...], data: List[object]) -> List[object]:
    """The elements of ``data``: flat, or nested as ``shape``, since any other nesting is of another tensor."""
    if not any(isinstance(one, list) for one in data):
        return data
    elements: List[object] = [data]
    for size in shape:
        rows = [one for one in elements if isinstance(one, list) and len(one) == size]
        if len(rows) != len(elements):
            break
        elements = list(itertools.chain.from_iterable(rows))
    if len(elements) != math.prod(shape) or any(isinstance(one, list) for one in elements):
        raise Refused(400, f"input {name} has data that is not nested as its shape {list(shape)}; or give it flat")
    return elements


def _texts(name: str, count: int, data: List[object], coding: object) -> List[bytes]:
    if coding not in (None, BASE64):
        raise Refused(400, f"input {name} has content_type {shortened(coding)}; must be {BASE64}, or left out for text")
    if len(data) != count or not all(isinstance(one, str) for one in data):
        raise Refused(400, f"input {name} must have {count} strings as its data")
    try:
        texts = [one.encode("utf-8") for one in data if isinstance(one, str)]
        return [base64.b64decode(one, validate=True) for one in texts] if coding else texts
    except UnicodeEncodeError as e:
        raise Refused(400, f"input {name} holds half a character") from e
    except (binascii.Error, ValueError) as e:
        raise Refused(400, f"input {name} is no {BASE64}") from e
