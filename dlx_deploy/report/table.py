"""Tables for the terminal: the result of a build, a plan, a listing."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import UnsetType

from dlx_deploy.runtime.pace import format_seconds
from dlx_deploy.runtime.words import line

__all__ = ["LOST", "format_age", "format_bytes", "format_mib", "format_ms", "format_seconds", "format_table"]

LOST = (
    "bad_images",
    "files_left_out",
    "copies_left_out",
    "leaked_images",
    "contradictory_images",
    "contradictory_texts",
    "repeated_test_images",
)
"""Metrics of the data of which every number but 0 must be seen."""


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """``rows`` under ``header`` in aligned columns; the columns numbered in ``right`` are aligned to the right."""
    lines = [list(header), *([line(cell) for cell in row] for row in rows)]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(header))]

    def draw(cells: Sequence[str]) -> str:
        padded = [
            text.rjust(w) if i in right else text.ljust(w)
            for i, (text, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * w for w in widths)
    return os.linesep.join([draw(lines[0]), rule, *map(draw, lines[1:])])


def format_bytes(count: float) -> str:
    """A size for a person, in powers of 1024: ``4.1 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def format_mib(value: float | UnsetType) -> str:
    """Whole MiB of memory, ``-`` where nobody knows."""
    return "-" if isinstance(value, UnsetType) else f"{value:.0f} MiB"


def format_ms(value: float | None) -> str:
    """Milliseconds with three significant digits, ``-`` where there is none."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def format_age(value: float) -> str:
    """How long ago, in the largest unit that fits: ``40 s``, ``12 min``, ``5 h``, ``3 days``."""
    for unit, seconds in (("days", 86400), ("h", 3600), ("min", 60)):
        if value >= seconds:
            return f"{value // seconds:.0f} {'day' if unit == 'days' and value < 2 * seconds else unit}"
    return f"{value:.0f} s"
