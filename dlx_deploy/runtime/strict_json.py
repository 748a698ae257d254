"""JSON as a package holds it: what cannot be written again, shown or compared is refused where it is read."""

from __future__ import annotations

import json
import math
from typing import Iterable, List, NoReturn, Tuple

from .words import shortened

__all__ = ["from_json"]

MAX_DEPTH = 64
MAX_DIGITS = 30  # Python takes seconds for a number of a million digits


def from_json(data: bytes) -> object:
    """The value that ``data`` holds, as UTF-8.

    Raises:
        ValueError: no JSON; NaN or an infinite number; a number of too many digits; half a character (a lone
            surrogate); lists and tables nested too deep.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_integer, parse_float=_number)
    except RecursionError as e:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from e
    halves = b"\\u" in data  # only what is written so can be half a character: the bytes are UTF-8
    stack: List[Tuple[object, int]] = [(value, 1)]
    while stack:
        one, depth = stack.pop()
        if isinstance(one, (dict, list)) and depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if halves:
            _check_text(one)
        items: Iterable[object] = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        stack.extend((item, depth + 1) for item in items if halves or isinstance(item, (dict, list)))
    return value


def _check_text(value: object) -> None:
    for text in value if isinstance(value, dict) else (value,):
        try:
            if isinstance(text, str):
                text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise ValueError(f"{shortened(text)} holds half a character") from e


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)
