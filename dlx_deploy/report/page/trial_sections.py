"""The sections on what was tried: by quantization, and by a search."""

from __future__ import annotations

from dlx_deploy.graph.quantization.kit.decisions import Decision, Decisions
from dlx_deploy.report.page.facts import Quantization, Searched
from dlx_deploy.report.page.parts import Figure, Section, Table
from dlx_deploy.report.page.trial_figures import pareto, trace, tried
from dlx_deploy.report.page.trials import points_table, points_words, search_table, search_words
from dlx_deploy.runtime.words import percent

__all__ = ["quantization_section", "search_section"]


def quantization_section(seen: Quantization | None) -> Section | None:
    """What each step of quantization gave, and what was tried to keep to its budget."""
    if seen is None:
        return None
    text, tables = points_words(seen), list[Table]()
    if seen.decisions is not None:
        tables += _decided(seen.decisions)
        text += [f"quantize.effort = {seen.decisions.effort}. {seen.decisions.note}".strip()]
    figures = _figures(seen)
    if seen.points and not figures:
        tables.append(points_table(seen))
    return Section("quantization", "Quantization", text, figures=figures, tables=tables)


def _figures(seen: Quantization) -> list[Figure]:
    """Where there is more than one graph to compare; the table stands below the last."""
    if len(seen.points) < 2 or seen.trials is None:
        return []
    table, title = points_table(seen), seen.trials.title
    timed = [point for point in seen.points if point.latency_ms is not None]
    if len(timed) < 2:
        return [trace(seen.points, seen.trials, table)]
    return [trace(seen.points, seen.trials, None), tried(timed, title, table)]


def search_section(searched: Searched | None) -> Section | None:
    """Which trial of a search the build is of, and how it stands among the others."""
    if searched is None:
        return None
    text, trials = search_words(searched), searched.trials
    if trials is None:
        return Section("search", "Search", text)
    table = search_table(searched, trials)
    if sum(one.score is not None for one in trials.trials) < 2:
        return Section("search", "Search", text, tables=[table])
    return Section("search", "Search", text, figures=[pareto(searched, trials, table)])


def _decided(decisions: Decisions) -> list[Table]:
    if not decisions.steps:
        return []
    header = ["step", "kept", "SQNR before", "after", "same decisions before", "after", "why not"]
    caption = f"What each step gave, by {decisions.held:,} calibration samples that were held out"
    return [Table(header, [_decision(step) for step in decisions.steps], right=(2, 3, 4, 5), caption=caption)]


def _decision(step: Decision) -> list[str]:
    shares = [step.agreement_before, step.agreement_after]
    noise = (step.sqnr_db_before, step.sqnr_db_after)
    return [
        step.step,
        "yes" if step.kept else "no",
        *("-" if db is None else f"{db:.1f} dB" for db in noise),
        *("-" if share is None else percent(share) for share in shares),
        step.why,
    ]
