"""Reading and writing protobuf's wire format: what is needed to edit an ONNX model where no ``onnx`` package is.

A message is a list of ``Field``, in the order in which they came; what is not understood is written back as it was.
"""

from __future__ import annotations

from typing import Iterable, List, Tuple, Union

__all__ = [
    "BYTES",
    "FIXED32",
    "FIXED64",
    "VARINT",
    "Data",
    "Field",
    "Malformed",
    "read_message",
    "read_numbers",
    "write_message",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
Data = Union[bytes, memoryview]
Field = Tuple[int, int, Union[int, bytes, memoryview]]
"""(number, wire type, value): an int for ``VARINT``, else the bytes of the value."""


class Malformed(Exception):
    """Raised where bytes are no protobuf; says why."""


def read_message(data: Data) -> List[Field]:
    """The fields of a message, views into ``data``.

    Raises:
        Malformed: the bytes are no protobuf message.
    """
    view, position = memoryview(data), 0
    parts: List[Field] = []
    while position < len(view):
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, position = _varint(view, position)
            parts.append((number, wire, value))
            continue
        if wire == BYTES:
            size, position = _varint(view, position)
        elif wire in SIZES:
            size = SIZES[wire]
        else:
            raise Malformed(f"wire type {wire} at byte {position}")
        if not number or size > len(view) - position:
            raise Malformed(f"field {number} of {size} bytes at byte {position} of {len(view)}")
        parts.append((number, wire, view[position : position + size]))
        position += size
    return parts


def write_message(fields: Iterable[Field]) -> bytes:
    """The message as bytes."""
    parts: List[Data] = []
    for number, wire, value in fields:
        parts.append(_encoded(number << 3 | wire))
        if isinstance(value, int):
            parts.append(_encoded(value))
        else:
            parts += [_encoded(len(value)), value] if wire == BYTES else [value]
    return b"".join(parts)


def read_numbers(field: Field) -> List[int]:
    """The numbers in a repeated field's occurrence, packed or not; not negative where read as unsigned.

    Raises:
        Malformed: the bytes are no packed numbers.
    """
    value = field[2]
    if isinstance(value, int):
        return [value]
    view, position = memoryview(value), 0
    numbers: List[int] = []
    while position < len(view):
        number, position = _varint(view, position)
        numbers.append(number)
    return numbers


def _varint(view: memoryview, position: int) -> Tuple[int, int]:
    """The number at ``position``, and where it ends."""
    value = 0
    for shift, byte in enumerate(view[position : position + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    raise Malformed(f"a number at byte {position} of {len(view)} has no end")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
