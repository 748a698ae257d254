"""What each slice of the test split lost and gained, or its metric, as a table: the worst first."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.statistics.groups import Group, Judged, by_drop
from dlx_deploy.runtime.statistics.scored import Scored
from dlx_deploy.runtime.words import percent, points

__all__ = ["draw_slices", "slice_table"]

_COUNTED = ("slice", "samples", "teacher", "model", "drop", "lost", "gained")
_SHOWN = 12


def slice_table(slices: Sequence[Judged]) -> tuple[tuple[str, ...], ...]:
    """The header, and a row for each of ``slices``, which are all counted or all scored, the largest drop first;
    nothing without slices."""
    if not slices:
        return ()
    first = slices[0]
    header = (
        ("slice", first.noun, "teacher", "model", f"{first.metric} drop") if isinstance(first, Scored) else _COUNTED
    )
    return (header, *(_row(group) for group in by_drop(slices)))


def _row(group: Judged) -> tuple[str, ...]:
    if isinstance(group, Group):
        shares = percent(group.teacher / group.samples), percent(group.package / group.samples)
        return (group.name, str(group.samples), *shares, points(group.drop), str(group.lost), str(group.gained))
    if group.teacher is None or group.package is None:
        return (group.name, str(group.samples), "no value", "no value", "")
    return (group.name, str(group.samples), percent(group.teacher), percent(group.package), points(group.drop))


def draw_slices(slices: Sequence[Judged]) -> list[str]:
    """The table of the worst for a terminal, and how many more there are; nothing without slices."""
    if not slices:
        return []
    header, *rows = slice_table(slices)
    table = format_table(header, rows[:_SHOWN], right=range(1, len(header)))
    more = len(slices) - _SHOWN
    return ["", table, *([f"{more} more slices, none of which drops further, are in --json."] if more > 0 else [])]
