"""Class names: their order, and names that only look different. The same on both sides; standard library only."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

__all__ = ["alike", "class_numbers", "class_order", "composed", "same_but_for_writing", "synset"]

_NUMBER = r"[+-]?[0-9]+(\.[0-9]+)?"
_DIGITS = r"[0-9]{1,9}"
_SYNSET = r"(n[0-9]{8})[\s,]+\S"


def composed(name: str) -> str:
    """``name`` in Unicode's composed form (NFC): a Mac writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def class_order(names: Iterable[str]) -> List[str]:
    """The distinct ``names`` in the order of class numbers: numbers by value, so 2 before 10, then the others."""
    return sorted(set(names), key=_rank)


def alike(names: Iterable[str]) -> Optional[Tuple[str, str]]:
    """The first two of ``names`` that differ in their writing only: case, spaces, Unicode's forms, 1 and 01."""
    seen: Dict[str, str] = {}
    for name in class_order(names):
        other = seen.setdefault(_plain(name), name)
        if other != name:
            return other, name
    return None


def same_but_for_writing(name: str, names: Iterable[str]) -> Optional[str]:
    """The one of ``names`` that ``name`` is alike, or ``None``."""
    return next((other for other in names if _plain(other) == _plain(name)), None)


def synset(name: str) -> Optional[str]:
    """The WordNet number that the class ``name`` begins with, as ``n01440764 tench, Tinca tinca`` does: its folder."""
    found = re.match(_SYNSET, name)
    return found.group(1) if found else None


def class_numbers(names: Sequence[str], classes: Sequence[str]) -> Dict[str, Optional[int]]:
    """Name → the number of the class that it means among ``classes``, or ``None``.

    A name means a class by its whole name or by the synset that this begins with; where none does, and all names are
    whole numbers that there are, they are the classes' own, from 0 on.
    """
    known = {key: i for i, label in enumerate(classes) for key in (synset(composed(label)),) if key}
    known.update({composed(label): i for i, label in enumerate(classes)})
    numbers = {name: known.get(composed(name)) for name in names}
    if all(number is None for number in numbers.values()) and all(re.fullmatch(_DIGITS, name) for name in names):
        own = {name: int(name) for name in names}
        return {**numbers, **own} if max(own.values(), default=0) < len(classes) else numbers
    return numbers


def _rank(name: str) -> Tuple[int, Decimal, str]:
    if re.fullmatch(_NUMBER, name):
        return 0, Decimal(name), name
    return 1, Decimal(0), name


def _plain(name: str) -> str:
    """``name`` without what a reader does not see."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(c for c in folded if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    text = " ".join(seen.split())
    return _shortest(text) if re.fullmatch(_NUMBER, text) else text


def _shortest(number: str) -> str:
    """One spelling of each number; Decimal's own would round the long ones that identify things."""
    whole, _, fraction = number.lstrip("+-").partition(".")
    digits = f"{whole.lstrip('0')}.{fraction.rstrip('0')}"
    return f"-{digits}" if number.startswith("-") and digits != "." else digits
