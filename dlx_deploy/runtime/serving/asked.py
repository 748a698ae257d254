"""The body of an inference request: what is asked, checked against the protocol alone and not yet against a model."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from typing import Dict, List, Mapping, NoReturn, Optional, Tuple

from ..records import record, replace
from ..words import shortened
from .messages import Head, Refused
from .tensors import Described, InputTensor, describe_tensor, read_tensor

__all__ = ["Asked", "Wanted", "parse_asked"]

HEADER = "inference-header-content-length"
NUMBER = re.compile(r"[0-9]{1,12}")
REMEMBERED = 2_048  # bytes of JSON
MAX_JSON = 8 * 1024**2  # as Python objects it is ten times as much, while it is read
LARGE = 256 * 1024
READERS = threading.BoundedSemaphore(2)
"""Held while a large one is read."""
MAX_LISTS = 500_000  # Python looks through all of them again and again while there come more
MAX_DIGITS = 400  # of a number: Python takes seconds for one of a million
DIGITS = bytes(48 if 48 <= i < 58 else 32 for i in range(256))
MAX_TENSORS = 64
MAX_ID = 1_000
REPORT = "report"
TOP, TIMEOUT, UNREADABLE, BINARY = "top", "timeout", "unreadable", "binary_data_output"
KNOWN = (BINARY, TIMEOUT, TOP, UNREADABLE)


@record
class Wanted:
    """An output that is asked for; ``binary`` as its bytes, ``None``: as all are."""

    name: str
    binary: Optional[bool]


@record
class Asked:
    """A request. ``outputs``: ``None``: all. ``binary``: they come as bytes.

    ``report``: samples that cannot be read are told, and the others answered. ``timeout_s``: how long it may wait for
    the model at most. ``top``: how many of each sample's best answers are wanted, where they are decoded; ``drawn``:
    with what of them is a picture.
    """

    id: Optional[str]
    inputs: Tuple[InputTensor, ...]
    outputs: Optional[Tuple[Wanted, ...]]
    binary: bool = False
    report: bool = False
    timeout_s: Optional[float] = None
    top: int = 1
    drawn: bool = False


def parse_asked(head: Head, body: memoryview) -> Asked:
    """The request that ``body`` holds: JSON, and behind it the bytes of tensors, where a header says how long it is.

    Raises:
        Refused: 400, 413, 415.
    """
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body is compressed, which is not read here; send it as it is")
    size = len(body)
    if HEADER in head.headers:
        text = head.headers[HEADER]
        if not NUMBER.fullmatch(text) or int(text) > size:
            raise Refused(400, f"{HEADER} is {shortened(text)}; must be how many of the {size} bytes are JSON")
        size = int(text)
    raw = bytes(body[:size])
    with READERS if size > LARGE else contextlib.nullcontext():
        return _read(raw, body[size:])


def _read(raw: bytes, rest: memoryview) -> Asked:
    size = len(raw)
    asked, described = (_remembered if size <= REMEMBERED else _described)(raw)
    inputs: List[InputTensor] = []
    for one in described:
        tensor, rest = read_tensor(one, rest)
        inputs.append(tensor)
    if len(rest):
        raise Refused(400, f"{len(rest)} bytes are left behind those of the inputs; {HEADER} and they must agree")
    return replace(asked, inputs=tuple(inputs))


def _described(raw: bytes) -> Tuple[Asked, Tuple[Described, ...]]:
    """What the JSON asks, still without its inputs, and what it says of them."""
    table = _table(raw)
    parameters = _parameters(table.get("parameters", {}))
    asked = Asked(
        _id(table.get("id")),
        (),
        _outputs(table["outputs"]) if table.get("outputs") else None,
        _flag(BINARY, parameters.get(BINARY, False)),
        _report(parameters.get(UNREADABLE)),
        _timeout(parameters.get(TIMEOUT)),
        _top(parameters.get(TOP, 1)),
    )
    return asked, _inputs(table.get("inputs"))


_remembered = functools.lru_cache(maxsize=64)(_described)
"""Whoever sends tensors as bytes says the same of each of them: reading that anew takes longer than a small network."""


def _table(raw: bytes) -> Mapping[str, object]:
    if len(raw) > MAX_JSON:
        raise Refused(413, f"the body has {len(raw)} bytes of JSON; at most {MAX_JSON}: send tensors as binary data")
    if b"0" * MAX_DIGITS in raw.translate(DIGITS):
        raise Refused(400, f"the JSON holds a number of {MAX_DIGITS} digits or more")
    if raw.count(b"[") + raw.count(b"{") > MAX_LISTS:
        raise Refused(400, f"the JSON holds more than {MAX_LISTS} lists; give data flat, or as binary data")
    try:
        table = DECODER.decode(raw.decode("utf-8"))
    except RecursionError as e:
        raise Refused(400, "the JSON is nested too deep") from e
    except ValueError as e:
        raise Refused(400, f"the body is no JSON: {e}") from e
    if not isinstance(table, dict):
        raise Refused(400, "the JSON must be a table with inputs")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: List[Tuple[str, object]]) -> Dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is there twice in one table")
    return table


DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)


def _inputs(given: object) -> Tuple[Described, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_TENSORS:
        raise Refused(400, "the request has no inputs; must be a list of 1 or more tensors")
    described: List[Described] = []
    for one in map(describe_tensor, given):
        if any(one.name == other.name for other in described):
            raise Refused(400, f"input {shortened(one.name)} is there twice")
        described.append(one)
    return tuple(described)


def _outputs(described: object) -> Tuple[Wanted, ...]:
    if not isinstance(described, list) or len(described) > MAX_TENSORS:
        raise Refused(400, "outputs must be a list of tables with a name, or left out for all")
    wanted: List[Wanted] = []
    for one in described:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise Refused(400, "outputs holds what has no name; each must be a table with a name")
        name, parameters = one["name"], one.get("parameters", {})
        if not isinstance(parameters, dict) or not set(parameters) <= {"binary_data"}:
            raise Refused(400, f"output {shortened(name)} has other parameters than binary_data, which alone is known")
        if any(name == other.name for other in wanted):
            raise Refused(400, f"output {shortened(name)} is there twice")
        binary = parameters.get("binary_data")
        wanted.append(Wanted(name, None if binary is None else _flag("binary_data", binary)))
    return tuple(wanted)


def _parameters(parameters: object) -> Mapping[str, object]:
    """Those of the request. One that is not known is refused: its answer would be to another question."""
    if not isinstance(parameters, dict):
        raise Refused(400, "parameters must be a table")
    for name in parameters:
        if name not in KNOWN:
            raise Refused(400, f"the parameter {shortened(name)} is not known here; there are {', '.join(KNOWN)}")
    return parameters


def _id(value: object) -> Optional[str]:
    if value is None or (isinstance(value, str) and len(value) <= MAX_ID):
        return value
    raise Refused(400, f"id must be a string of at most {MAX_ID} characters")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Refused(400, f"{name} is {shortened(value)}; must be true or false")


def _report(value: object) -> bool:
    if value in (None, REPORT):
        return value is not None
    raise Refused(400, f"{UNREADABLE} is {shortened(value)}; must be {REPORT!r}, or left out: the request then fails")


def _timeout(value: object) -> Optional[float]:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53:
        return value / 1e6
    raise Refused(400, f"{TIMEOUT} is {shortened(value)}; must be a whole number of microseconds, over 0")


def _top(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
        return value
    raise Refused(400, f"{TOP} is {shortened(value)}; must be a whole number, 1 or more")
