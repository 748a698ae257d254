"""What a survey of a data set says, whatever its samples are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

__all__ = [
    "FILES",
    "Example",
    "Finding",
    "Pair",
    "Severity",
    "SplitSeen",
    "Spread",
    "Survey",
    "Surveyed",
    "found",
    "in_order",
    "spread",
]

Severity = Literal["refused", "warning", "note"]
"""``refused``: a build stops at it; ``warning``: it makes a network or its figures worse; ``note``: it may be meant."""


class SplitSeen(msgspec.Struct, frozen=True):
    """A split as a build would have it. ``origin``: the split that it is drawn from, "" if it is given.

    ``per_class``: how many samples of each class, or nothing where they have none (calibration).
    """

    name: str
    count: int
    origin: str
    per_class: tuple[int, ...]


class Spread(msgspec.Struct, frozen=True):
    """The least, the median and the largest of a number that each sample has, in ``unit``."""

    name: str
    unit: str
    least: float
    median: float
    most: float


class Finding(msgspec.Struct, frozen=True):
    """Something that the user should know: of ``count`` among ``total`` samples or classes, of which ``files`` names
    the first ones; or of the whole, where ``count`` is 0. ``text`` goes on behind the numbers."""

    kind: str
    severity: Severity
    text: str
    count: int = 0
    total: int = 0
    files: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The whole sentence."""
        return f"{self.count:,} of {self.total:,} {self.text}" if self.count else self.text


PICTURED = ("turned", "cmyk", "deep", "alpha", "suffix", "small", "long", "contradictory", "repeated", "copies")
"""Kinds of findings whose files are pictures to look at."""
FILES = 20
"""A finding names so many."""


def found(kind: str, severity: Severity, text: str, names: Sequence[str], total: int) -> Finding:
    """A finding of the samples ``names`` among ``total``."""
    return Finding(kind, severity, text, len(names), total, tuple(names[:FILES]))


class Pair(msgspec.Struct, frozen=True):
    """Two samples of different splits: the same, if ``exact``, or nearly. ``distance``: the bits of 64 of a perceptual
    hash that differ."""

    first: str
    first_split: str
    first_class: str
    second: str
    second_split: str
    second_class: str
    distance: int
    exact: bool = False


class Example(msgspec.Struct, frozen=True):
    """A sample to be shown, with others of its ``group``, a class: the name of a file, or a text."""

    split: str
    group: str
    name: str


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``shares``: split → the share of pixels that each class has, of masks. ``root``: what names of files
    are relative to, "" where there are none. ``slices``: slice, COLUMN=VALUE → its test samples."""

    kind: str
    path: str
    root: str
    noun: str
    classes: tuple[str, ...]
    splits: tuple[SplitSeen, ...]
    spreads: tuple[Spread, ...] = ()
    tallies: Mapping[str, Mapping[str, int]] = {}
    shares: Mapping[str, tuple[float, ...]] = {}
    slices: Mapping[str, int] = {}
    findings: tuple[Finding, ...] = ()
    copies: tuple[Pair, ...] = ()
    near: tuple[Pair, ...] = ()
    examples: tuple[Example, ...] = ()
    schema: int = 1

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What a build stops at."""
        return tuple(finding for finding in self.findings if finding.severity == "refused")


_RANK = {"refused": 0, "warning": 1, "note": 2}


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What stops a build first, then by how many samples it is of."""
    return tuple(sorted(findings, key=lambda f: (_RANK[f.severity], -f.count, f.kind)))


def spread(name: str, unit: str, values: Sequence[float]) -> Spread:
    """Of at least one value."""
    ranked = sorted(values)
    return Spread(name, unit, ranked[0], ranked[len(ranked) // 2], ranked[-1])


@dataclass(frozen=True)
class Surveyed:
    """``picture``: the name of an example, or of a file that the survey names → a small JPEG of it, or ``None``."""

    survey: Survey
    picture: Callable[[str], bytes | None] | None = None

    def adding(self, findings: Sequence[Finding]) -> Surveyed:
        """With more ``findings``."""
        more = in_order([*self.survey.findings, *findings])
        return replace(self, survey=msgspec.structs.replace(self.survey, findings=more))
