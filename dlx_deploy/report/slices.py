"""What each slice of the test split lost and gained, as a table: the worst first."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.statistics.groups import Group, by_drop
from dlx_deploy.runtime.words import percent, points

__all__ = ["HEADER", "draw_slices", "slice_rows"]

HEADER = ("slice", "samples", "teacher", "model", "drop", "lost", "gained")
_SHOWN = 12


def slice_rows(slices: Sequence[Group]) -> list[tuple[str, ...]]:
    """A row for each of ``slices``, under ``HEADER``, the largest drop first."""
    return [
        (
            group.name,
            str(group.samples),
            percent(group.teacher / group.samples),
            percent(group.package / group.samples),
            points(group.drop),
            str(group.lost),
            str(group.gained),
        )
        for group in by_drop(slices)
    ]


def draw_slices(slices: Sequence[Group]) -> list[str]:
    """The table of the worst for a terminal, and how many more there are; nothing without slices."""
    if not slices:
        return []
    table = format_table(HEADER, slice_rows(slices)[:_SHOWN], right=(1, 2, 3, 4, 5, 6))
    more = len(slices) - _SHOWN
    return ["", table, *([f"{more} more slices, none of which drops further, are in --json."] if more > 0 else [])]
