"""The trials of a search as a file of its study: what the report of a build of the choice shows beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.errors import StoreError
from dlx_deploy.runtime.schemas import newer_schema

__all__ = ["SCHEMA", "STUDIES", "StudyTrial", "StudyTrials", "TrialState", "read_study", "study_path"]

SCHEMA = 1
STUDIES, TRIALS = "search", "trials.json"
"""The folder of a store that studies lie in, and the file in that of one."""

TrialState = Literal["complete", "stopped", "failed"]


class StudyTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. ``values``: key → what it had, as TOML spells it. ``on_front``: no other one beats it in everything.

    ``score`` (0..1), ``drop_upper``, ``latency_ms``, ``size_bytes``: ``None`` where it came to no end, and ``reason``
    says why; of one that did ``reason`` says what it misses.
    """

    number: int
    values: dict[str, str]
    state: TrialState
    meets: bool
    on_front: bool
    score: float | None = None
    drop_upper: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    reason: str = ""


class StudyTrials(msgspec.Struct, frozen=True, kw_only=True):
    """What a study came to so far. ``title``: what scores are, of ``samples`` of the validation split.

    ``latency_budgets_ms``: by percentile. ``choose``: what the choice is the best in.
    """

    study: str
    title: str
    samples: int
    teacher_score: float
    latency_kind: str
    latency_where: str
    latency_budgets_ms: dict[str, float]
    choose: str
    trials: tuple[StudyTrial, ...]
    schema: int = SCHEMA


def study_path(store: Path, study: str) -> Path:
    """Where the trials of ``study`` are written down."""
    return store / STUDIES / study / TRIALS


def read_study(store: Path, study: str) -> StudyTrials | None:
    """What is known of ``study``; ``None`` where the store has nothing of it.

    Raises:
        StoreError: a newer dlx-deploy wrote it, or it is damaged.
    """
    path = study_path(store, study)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=StudyTrials)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise StoreError(f"{path}: cannot be read ({e}); run the search again, which writes it anew") from e
    if refusal := newer_schema(found.schema, SCHEMA):
        raise StoreError(f"{path}: {refusal}")
    return found
