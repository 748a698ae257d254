"""How timings are spread, of what ships, here and on boards: facts, words and a line of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dlx_deploy.report.page.facts import Models, Verdicts
from dlx_deploy.report.page.parts import Table
from dlx_deploy.report.table import format_ms
from dlx_deploy.runtime.timing.histogram import Histogram
from dlx_deploy.runtime.timing.latency import PERCENTILES
from dlx_deploy.runtime.words import line

__all__ = ["Spread", "drawn_in_text", "spread_table", "spread_words", "spreads_of"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_MOST_BLOCKS = 32
"""Characters of a histogram on a line."""


@dataclass(frozen=True)
class Spread:
    """Timings of ``what``, in milliseconds; ``bounds`` and ``budgets``: of percentiles, as they were judged."""

    what: str
    histogram: Histogram
    percentiles: Mapping[int, float]
    bounds: Mapping[int, float] = field(default_factory=dict)
    budgets: Mapping[int, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many timings there are."""
        return sum(self.histogram.counts) + self.histogram.slower


def spreads_of(models: Models | None, verdicts: Verdicts) -> Iterator[Spread]:
    """Of what ships, where it was measured with the build, and of each board that measured it since."""
    shipped = next((row for row in models.candidates if row.chosen), None) if models else None
    if models and shipped and shipped.latency and shipped.latency.histogram:
        seen = {one.percentile: one.ms for one in shipped.latency.percentiles}
        judged = {gate.metric: gate for gate in verdicts.gates if gate.gate == "latency"}
        limits = {p: judged[f"latency_p{p}_ms"] for p in PERCENTILES if f"latency_p{p}_ms" in judged}
        yield Spread(
            what=f"{line(shipped.model)} on {line(models.latency_where)}",
            histogram=shipped.latency.histogram,
            percentiles=seen,
            bounds={p: gate.bound for p, gate in limits.items() if gate.bound is not None},
            budgets={p: gate.limit for p, gate in limits.items()},
        )
    for board, proof in verdicts.boards.items():
        if proof.latency is None or proof.latency.histogram is None:
            continue
        shown = {one.metric: one for one in proof.budgets}
        known = {p: shown[f"latency_p{p}_ms"] for p in PERCENTILES if f"latency_p{p}_ms" in shown}
        yield Spread(
            what=f"the package on {line(board)}",
            histogram=proof.latency.histogram,
            percentiles={50: proof.latency.p50_ms, 90: proof.latency.p90_ms, 99: proof.latency.p99_ms},
            bounds={p: one.bound for p, one in known.items() if one.bound is not None},
            budgets={p: one.limit for p, one in known.items()},
        )


def spread_words(spread: Spread) -> str:
    """The same in a sentence."""
    seen = spread.histogram
    words = [
        f"{spread.count:,} timings of {spread.what}: {format_ms(seen.fastest_ms)} to {format_ms(seen.slowest_ms)}",
        ", ".join(f"p{p} {format_ms(ms)}" for p, ms in spread.percentiles.items()),
    ]
    for p, limit in spread.budgets.items():
        bound = f", bound {format_ms(spread.bounds[p])}" if p in spread.bounds else ""
        words.append(f"budget of p{p} {format_ms(limit)}{bound}")
    return "; ".join(words)


def spread_table(spread: Spread) -> Table:
    """The bins with something in them."""
    seen = spread.histogram
    edges = [(seen.fastest_ms + i * seen.width_ms, count) for i, count in enumerate(seen.counts) if count]
    rows = [[_ms(low), _ms(low + seen.width_ms), f"{count:,}"] for low, count in edges]
    if seen.slower:
        rows.append([_ms(_end(seen)), _ms(seen.slowest_ms), f"{seen.slower:,}"])
    return Table(["from", "to", "timings"], rows, right=(0, 1, 2), folded="The numbers", caption=spread.what)


def drawn_in_text(spread: Spread) -> str:
    """The histogram as characters that grow, one for each bin or several, and what is slower as a number."""
    seen = spread.histogram
    together = -(-len(seen.counts) // _MOST_BLOCKS)
    heights = [sum(seen.counts[i : i + together]) for i in range(0, len(seen.counts), together)]
    most = max(heights)
    drawn = "".join(_BLOCKS[(len(_BLOCKS) * height - 1) // most] if height else " " for height in heights)
    slower = f", {seen.slower:,} slower" if seen.slower else ""
    return f"{format_ms(seen.fastest_ms)} |{drawn}| {format_ms(_end(seen))}{slower}"


def _end(seen: Histogram) -> float:
    return seen.fastest_ms + len(seen.counts) * seen.width_ms


def _ms(value: float) -> str:
    """Finer than elsewhere: neighbouring bins differ by little."""
    return f"{value:.5g} ms"
