"""JSON as a package holds it: what cannot be written again, shown or compared is refused where it is read."""

from __future__ import annotations

import json
import math
from typing import List, NoReturn, Tuple

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
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_integer)
    except RecursionError as e:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from e
    stack: List[Tuple[object, int]] = [(value, 1)]
    while stack:
        one, depth = stack.pop()
        if isinstance(one, str):
            _check_text(one)
        elif isinstance(one, float) and not math.isfinite(one):
            raise ValueError("a number is too large")
        elif isinstance(one, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            if isinstance(one, dict):
                stack.extend((key, depth) for key in one)
            stack.extend((item, depth + 1) for item in (one.values() if isinstance(one, dict) else one))
    return value


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"{shortened(text)} holds half a character") from e


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)
