"""A data set as people look at it before they build of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.survey.findings import Pair, Survey
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.words import line, percent

__all__ = ["SurveyView", "class_rows", "pair_line", "slice_size_rows", "split_rows"]

_MOST_CLASSES = 30
"""A table of more classes shows the largest and the smallest; ``--json`` has all."""
_LISTED = 3
_PAIRS = 5
_SIGNS = {"refused": "✗ refused", "warning": "! warning", "note": "· note   "}


class SurveyView(msgspec.Struct, frozen=True):
    """What ``dlx-deploy data`` says."""

    survey: Survey

    @property
    def data(self) -> Survey:
        """All of it, but for what a contact sheet shows."""
        return msgspec.structs.replace(self.survey, examples=())

    @property
    def text(self) -> str:
        """Tables of splits and classes, what the samples are like, and what to do about them."""
        parts = [
            self.title,
            format_table(*split_rows(self.survey), right=(1,)),
            *_classes(self.survey),
            *_slices(self.survey),
            *_likeness(self.survey),
        ]
        return "\n\n".join([*parts, *_findings(self.survey), self.verdict])

    @property
    def title(self) -> str:
        """What there is, in a line."""
        survey = self.survey
        total = sum(s.count for s in survey.splits if not (s.name == "calibration" and s.origin == "train"))
        where = f"{survey.path}: " if survey.path else ""
        return line(f"{where}{total:,} {survey.noun} of {len(survey.classes):,} classes (data.kind = {survey.kind!r})")

    @property
    def verdict(self) -> str:
        """What a build would make of it, in a line."""
        if stops := len(self.survey.refusals):
            return f"A build would refuse these data, for {stops} reason{'s' * (stops > 1)}."
        told = sum(finding.severity == "warning" for finding in self.survey.findings)
        first = f"; look at the {told} warning{'s' * (told > 1)} first" if told else ""
        return f"A build would take these data{first}."

    @property
    def failure(self) -> DataError | None:
        """The first reason why a build would stop, if there is one."""
        stops = self.survey.refusals
        if not stops:
            return None
        rest = f" ({len(stops)} such reasons)" if len(stops) > 1 else ""
        return DataError(f"a build would stop{rest}: {stops[0].said}")


def class_rows(survey: Survey) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of all classes: how many samples of each, or which share of pixels."""
    counted = [split for split in survey.splits if split.per_class]
    if counted:
        header = ["class", *(split.name for split in counted)]
        numbers = [[f"{split.per_class[i]:,}" for split in counted] for i in range(len(survey.classes))]
    else:
        header = ["class", *(f"{split}, pixels" for split in survey.shares)]
        numbers = [[percent(of[i]) for of in survey.shares.values()] for i in range(len(survey.classes))]
    rows = [[_short(name), *cells] for name, cells in zip(survey.classes, numbers, strict=True)]
    return header, rows if len(header) > 1 else []


def pair_line(pair: Pair) -> str:
    """A pair in a line: what is what."""
    likeness = "is" if pair.exact else "looks like"
    return f"{pair.second} ({pair.second_split}) {likeness} {pair.first} ({pair.first_split})"


def split_rows(survey: Survey) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of splits."""
    rows = []
    for split in survey.splits:
        each = f"{min(split.per_class):,} to {max(split.per_class):,}" if split.per_class else "-"
        rows.append([split.name, f"{split.count:,}", each, f"drawn from {split.origin}" if split.origin else "given"])
    return ["split", survey.noun, "of each class", "where from"], rows


def _classes(survey: Survey) -> Iterator[str]:
    header, rows = class_rows(survey)
    right = range(1, len(header))
    if len(rows) <= _MOST_CLASSES:
        if rows:
            yield format_table(header, rows, right=right)
        return
    total = [sum(split.per_class[i] for split in survey.splits if split.per_class) for i in range(len(rows))]
    order = sorted(range(len(rows)), key=lambda i: -total[i])
    third = _MOST_CLASSES // 3
    gap = ["…", *("" for _ in header[1:])]
    yield format_table(
        header, [*(rows[i] for i in order[:third]), gap, *(rows[i] for i in order[-third:])], right=right
    )


def slice_size_rows(survey: Survey) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of slices: how many test samples each has."""
    return ["slice", f"test {survey.noun}"], [[_short(name), f"{count:,}"] for name, count in survey.slices.items()]


def _slices(survey: Survey) -> Iterator[str]:
    header, rows = slice_size_rows(survey)
    if rows:
        yield format_table(header, rows[:_MOST_CLASSES], right=(1,))
    if len(rows) > _MOST_CLASSES:
        yield f"{len(rows) - _MOST_CLASSES:,} more slices are in --json"


def _likeness(survey: Survey) -> Iterator[str]:
    if survey.spreads:
        rows = [[s.name, *(f"{value:,g}" for value in (s.least, s.median, s.most)), s.unit] for s in survey.spreads]
        yield format_table(["", "least", "median", "most", ""], rows, right=(1, 2, 3))
    lines = [f"{name}: {_tally(counts)}" for name, counts in survey.tallies.items() if counts]
    if lines:
        yield "\n".join(map(line, lines))


def _findings(survey: Survey) -> Iterator[str]:
    lines: list[str] = []
    for finding in survey.findings:
        lines.append(f"{_SIGNS[finding.severity]}  {finding.said}")
        shown = [] if finding.kind.startswith("near_") else finding.files[:_LISTED]
        lines += [f"             {name}" for name in shown]
        if shown and finding.count > len(shown):
            lines.append(f"             … and {finding.count - len(shown):,} more")
    pairs = (*survey.copies, *survey.near)
    lines += [f"  {pair_line(pair)}" for pair in pairs[:_PAIRS]]
    if len(pairs) > _PAIRS:
        lines.append(f"  … and {len(pairs) - _PAIRS:,} more pairs; --json lists all, --html shows them")
    if lines:
        yield "\n".join(map(line, lines))


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"
