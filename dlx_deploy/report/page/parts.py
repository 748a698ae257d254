"""What a page is made of: sections of paragraphs, figures and tables. Every text in them is plain, not yet escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Figure", "Page", "Section", "Table"]


@dataclass(frozen=True)
class Table:
    """``right``: columns of numbers. ``folded``: what to press to see it; empty: it is open. ``marked``: rows that
    stand out. ``badges``: the column that holds a verdict, -1: none."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    caption: str = ""
    folded: str = ""
    marked: frozenset[int] = frozenset()
    badges: int = -1


@dataclass(frozen=True)
class Figure:
    """A plot with what it shows in words, and ``table``, the same numbers to read; ``None``: those of the next plot.

    ``svg``: ours, its texts escaped.
    """

    name: str
    title: str
    svg: str
    table: Table | None


@dataclass(frozen=True)
class Section:
    """``name``: its anchor. ``first``: tables that stand before the figures."""

    name: str
    title: str
    text: Sequence[str] = ()
    first: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """All of it. ``outcome`` is a verdict and ``says`` what that means; ``identity``: the digest of what it shows."""

    title: str
    subtitle: str
    outcome: str
    says: str
    identity: str
    sections: Sequence[Section] = field(default_factory=tuple)
