"""Why a package is less accurate than the network that it was made of, as a frozen value and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from dlx_deploy.report.debug_facts import (
    ClippedRange,
    ConfusionCell,
    Flip,
    LayerRow,
    RangeRemedy,
    ReadingFinding,
    Remedy,
    StageScore,
    changed_cells,
)
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.views import lines_of

__all__ = ["DebugView"]

SHOWN = 12
"""Rows of a table in the text; JSON has all."""
TEXT = 60
"""Characters of a text in a table."""


class DebugView(msgspec.Struct, frozen=True, kw_only=True):
    """A package beside its network in floating point, which comes from ``reference``.

    ``metric``, ``title``: what scores (0..1) are, for machines and for people. ``samples`` of ``given`` were looked at,
    ``noise_samples`` for noise. ``stages``: what the build measured. ``reading``: how preprocessing
    differs, and ``compared``: what was looked at for it. ``layers``: those that win most first; the
    compressed ones, or all where none is. ``remedy``: ``None`` where no layer wins anything. ``flips``: those that the
    package is surest of first. ``notes``: what else there is to say, a sentence each.
    """

    package: str
    name: str
    target: str
    task: str
    noun: str
    metric: str
    title: str
    reference: str
    data_path: str
    samples: int
    given: int
    noise_samples: int
    reference_score: float
    score: float
    answers_db: float | None
    stages: tuple[StageScore, ...] = ()
    reading: tuple[ReadingFinding, ...] = ()
    compared: str = ""
    layers: tuple[LayerRow, ...] = ()
    remedy: Remedy | None = None
    ranges: tuple[ClippedRange, ...] = ()
    range_remedy: RangeRemedy | None = None
    flips: tuple[Flip, ...] = ()
    confusion: tuple[ConfusionCell, ...] = ()
    notes: tuple[str, ...] = ()
    schema: int = 1

    @property
    def data(self) -> DebugView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The scores, then each part under a title of its own."""
        parts = [lines_of(self._head()), lines_of(self._reading()), *self._layers(), *self._flips(), *self._ranges()]
        if self.notes:
            parts.append(lines_of(self.notes))
        return "\n\n".join(parts)

    def _head(self) -> Iterator[str]:
        yield f"{self.name} for {self.target} ({self.task}), beside its network in floating point: {self.reference}"
        some = f"{self.samples:,} of {self.given:,}" if self.samples < self.given else f"{self.samples:,}"
        yield (
            f"{self.title}: {_percent(self.reference_score)} in floating point, {_percent(self.score)} in the package: "
            f"{_points(self.score - self.reference_score)}, on {some} {self.noun} ({self.data_path})"
        )
        if self.answers_db is not None:
            yield f"its answers beside those in floating point: {_db(self.answers_db)} dB"
        if self.stages:
            yield "in the build: " + " → ".join(f"{s.model} {_percent(s.score)}" for s in self.stages)

    def _reading(self) -> Iterator[str]:
        verdict = "nothing differs" if not self.reading else f"{len(self.reading)} found"
        yield f"preprocessing: {verdict}; {self.compared}"
        for one in self.reading:
            yield f"  {one.name}: {one.said}"
            yield f"    {one.remedy}"

    def _layers(self) -> Iterator[str]:
        if not self.layers:
            return
        rows = [
            [
                _names(row.layers),
                row.operator,
                row.precision,
                _db(row.sqnr_db),
                _db(row.own_sqnr_db),
                "-" if row.won is None else _points(row.won),
                _db(row.answers_db),
            ]
            for row in self.layers[:SHOWN]
        ]
        header = ["layer", "operator", "precision", "SQNR dB", "alone dB", "won back", "answers dB"]
        tried = sum(row.won is not None for row in self.layers)
        title = (
            f"layers: noise on {self.noise_samples} {self.noun} (at the output; of the layer alone), and what {tried} "
            "of the worst win back in floating point"
        )
        more = [f"… and {len(self.layers) - SHOWN} more (--json)"] if len(self.layers) > SHOWN else []
        yield "\n".join([lines_of([title]), format_table(header, rows, right=(3, 4, 5, 6)), *more])
        if self.remedy:
            said = f"to have {_names(self.remedy.layers)} in floating point ({_points(self.remedy.won)} here):"
            yield lines_of([said, *(f"  {line}" for line in self.remedy.lines)])

    def _flips(self) -> Iterator[str]:
        if not self.confusion:
            return
        counts = {way: sum(flip.direction == way for flip in self.flips) for way in ("lost", "won", "other")}
        title = f"flips: {counts['lost']} lost, {counts['won']} won, {counts['other']} wrong in another way"
        rows = [
            [
                flip.direction,
                flip.name or flip.text[:TEXT] or f"number {flip.number}",
                flip.wanted,
                f"{flip.before} ({flip.before_confidence:.0%})",
                f"{flip.after} ({flip.after_confidence:.0%})",
            ]
            for flip in self.flips[:SHOWN]
        ]
        more = [f"… and {len(self.flips) - SHOWN} more (--json, --out)"] if len(self.flips) > SHOWN else []
        table = (
            [format_table(["", self.noun[:-1], "wanted", "in floating point", "in the package"], rows)] if rows else []
        )
        yield "\n".join([lines_of([title]), *table, *more])
        if changed := changed_cells(self.confusion)[:SHOWN]:
            told = [f"  {c.wanted} answered as {c.answered}: {c.before:,} before, {c.after:,} after" for c in changed]
            yield lines_of(["confusions that changed most:", *told])

    def _ranges(self) -> Iterator[str]:
        bad = [one for one in self.ranges if one.clipped]
        if not self.ranges:
            return
        title = f"calibration: {len(bad)} of {len(self.ranges)} ranges clip some value of these {self.noun}"
        if not bad:
            yield lines_of([title])
            return
        rows = [
            [
                f"{one.tensor} ({one.node})" if one.node else one.tensor,
                f"{one.low:.4g} to {one.high:.4g}",
                f"{one.seen_low:.4g} to {one.seen_high:.4g}",
                f"{100 * one.clipped:.3g} %",
                f"{100 * one.samples:.3g} %",
                f"{one.beyond:.3g}",
            ]
            for one in bad[:SHOWN]
        ]
        header = ["tensor (made by)", "range", "seen", "values", self.noun, "beyond, in widths"]
        more = [f"… and {len(bad) - SHOWN} more (--json)"] if len(bad) > SHOWN else []
        wider = self.range_remedy
        if wider is not None:
            said = f"with {_names(wider.tensors)} wide enough for all of these {self.noun}: {_points(wider.won)}"
            see = "; to calibrate on more:" if wider.lines else ""
            more.append(lines_of([said + see, *(f"  {line}" for line in wider.lines)]))
        yield "\n".join([lines_of([title]), format_table(header, rows, right=(3, 4, 5)), *more])


def _percent(score: float) -> str:
    return f"{100 * score:.2f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f} points"


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _names(layers: Sequence[str]) -> str:
    return ", ".join(layers)
