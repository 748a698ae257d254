"""How values and other people's words are shown: on one line, not too long, and with nothing that a terminal obeys."""

from __future__ import annotations

import re
from typing import Sequence, Tuple

__all__ = [
    "GROUPS",
    "GROUP_COLUMN",
    "SAMPLES",
    "escaped",
    "first_names",
    "line",
    "percent",
    "points",
    "said",
    "shortened",
]

SAMPLES, GROUPS = "samples", "groups"  # what is drawn: samples that each are one of its own, or groups of them
GROUP_COLUMN = "group"  # of a list: what samples have in common that are not independent
MAX_VALUE, MAX_WORDS = 200, 600  # characters in a message
NAMED = 3  # samples in a message: the first few show which kind they are
UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, format (writing direction among them) and half characters, and of line ends."""
CANDIDATES = r"[^\t\n\x20-\x7e\xa1-\xac\xae-\u05ff]"


def escaped(text: str) -> str:
    """``text`` as it may be printed: what a terminal obeys instead of showing it is written as in JSON, ``\\u001b``.

    Line ends and tabs stay: what has them inside a name is made a ``line`` first. JSON stays the same JSON.
    """
    return text if text.isascii() and text.isprintable() else re.sub(CANDIDATES, _escape, text)


def line(text: str) -> str:
    """As ``escaped``, with line ends and tabs escaped too: for a name, a label or a path that is part of a line."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(value: object) -> str:
    """``value`` as Python writes it, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def percent(fraction: float) -> str:
    """A share of one: ``0.5`` is ``50.00 %``."""
    return f"{100 * fraction:.2f} %"


def points(fraction: float) -> str:
    """A difference of two shares: ``0.02`` is ``2.00 points``."""
    return f"{100 * fraction:.2f} points"


def said(error: BaseException) -> str:
    """What another library says of a failure, on one line, cut where it gets long."""
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…"


def _escape(match: "re.Match[str]") -> str:
    import unicodedata

    character = match.group()
    if unicodedata.category(character) not in UNSAFE:
        return character
    number = ord(character)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    return f"\\u{0xD7C0 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def first_names(rows: Sequence[int], names: Sequence[str]) -> Tuple[str, ...]:
    """What the first few of the samples ``rows`` are called; ``names``: of all, if they have any of their own."""
    return tuple(names[row] if row < len(names) else f"number {row}" for row in rows[:NAMED])
