"""What a search came to, written down in its study for the reports of what is built of the choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.locks import store_error
from dlx_deploy.report.studies import StudyTrial, StudyTrials, study_path
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.search.view import SearchView, TrialRow

__all__ = ["remember"]


def remember(store: Path, view: SearchView, latency_budgets: Mapping[int, float]) -> None:
    """Write it down, if a trial came to its end; ``latency_budgets``: percentile → milliseconds.

    Raises:
        StoreError: it cannot be written.
    """
    known = next((row.figures for row in view.trials if row.figures), None)
    if known is None:
        return
    study = StudyTrials(
        study=view.study,
        title=known.title,
        samples=known.samples,
        teacher_score=known.teacher_score,
        latency_kind=known.latency_kind,
        latency_where=known.latency_where,
        latency_budgets_ms={str(percentile): limit for percentile, limit in latency_budgets.items()},
        choose=view.choose,
        trials=tuple(map(_trial, view.trials)),
    )
    path = study_path(store, view.study)
    try:
        write_atomically(path, canonical_json(study))
    except OSError as e:
        raise store_error(e, path) from e


def _trial(row: TrialRow) -> StudyTrial:
    figures = row.figures
    return StudyTrial(
        number=row.number,
        values=row.values,
        state=row.state,
        meets=row.meets,
        on_front=row.on_front,
        score=figures.score if figures else None,
        drop_upper=figures.drop_upper if figures else None,
        latency_ms=figures.latency_ms if figures else None,
        size_bytes=figures.size_bytes if figures else None,
        reason=row.reason or "; ".join(miss.text for miss in row.misses),
    )
