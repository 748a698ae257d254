"""Tries one step after the other, and keeps those with which unseen inputs get better answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dlx_deploy.graph.quantization.kit.decisions import Decision, Decisions
from dlx_deploy.graph.quantization.kit.judge import Judge, Score
from dlx_deploy.graph.quantization.kit.state import Setting, State, Step
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress

__all__ = ["LEAST_ROWS", "Improvement", "improve"]

LEAST_ROWS = 16
"""Calibration inputs: with fewer, eight on either side say nothing."""
LEAST_GAIN_DB = 0.05
"""Less is not worth a change."""
MOST_LOST, ERRORS = 0.01, 2.0
"""Of the decisions, and in standard errors: what raises the ratio and costs more of them is not better."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Improvement:
    """The last state that was kept, how it came about, and the CPU seconds of each step."""

    state: State
    decisions: Decisions
    seconds: Mapping[str, float] = field(default_factory=dict)


def improve(
    state: State, setting: Setting, steps: Sequence[Step], samples: Samples, exact: bool, progress: Progress
) -> Improvement:
    """The state after ``steps``: each sees every other one of ``samples``, and is judged by the rest.

    Raises:
        StageFailed: ONNX Runtime cannot run what was written.
    """
    if len(samples) < LEAST_ROWS:
        return _untouched(state, f"{len(samples)} calibration inputs; rule: at least {LEAST_ROWS}, half to judge by")
    order = np.arange(len(samples))
    setting = replace(setting, fitted=samples[order[::2]])
    progress(0, 0, f"answers to {len(order) // 2} calibration inputs that are held out")
    judge = Judge(state.model, samples[order[1::2]], exact)
    if not judge.compares:
        return _untouched(state, "the network answers in integers, which are not near or far")
    note = ""
    if judge.decides == 1:
        note = f"all {len(judge.held)} inputs that are held out get the same answer: agreement tells nothing of others"
        _log.warning("quantize: %s; give calibration inputs of every class", note)
    score, decided, seconds = judge.score(setting.write(state)), list[Decision](), dict[str, float]()
    for step in steps:
        started = time.process_time()
        progress(len(decided), len(steps), f"{step.name}; SQNR {score.sqnr_db:.1f} dB so far")
        proposed = step.propose(state, setting, progress)
        after = judge.score(setting.write(proposed)) if proposed is not None else None
        decision = _decide(step.name, score, after)
        decided.append(decision)
        seconds[step.name] = time.process_time() - started
        if decision.kept and proposed is not None and after is not None:
            state, score = proposed, after
    decisions = Decisions(fitted=len(setting.fitted), held=len(judge.held), note=note, steps=tuple(decided))
    return Improvement(state, decisions, seconds)


def _untouched(state: State, why: str) -> Improvement:
    _log.warning("quantize.effort: nothing is improved: %s", why)
    return Improvement(state, Decisions(note=why))


def _decide(step: str, before: Score, after: Score | None) -> Decision:
    if after is None:
        return Decision(step=step, kept=False, sqnr_db_before=round(before.sqnr_db, 3), why="nothing to change")
    lost = (before.agreement or 0.0) - (after.agreement or 0.0)
    differing = (2 - (before.agreement or 0.0) - (after.agreement or 0.0)) * after.decisions
    by_chance = ERRORS * differing**0.5 / max(after.decisions, 1)
    why = ""
    if after.sqnr_db < before.sqnr_db + LEAST_GAIN_DB:
        why = f"rule: at least {LEAST_GAIN_DB} dB more"
    elif lost > max(MOST_LOST, by_chance):
        why = f"{lost:.1%} of the decisions are lost; rule: at most {max(MOST_LOST, by_chance):.1%}"
    return Decision(
        step=step,
        kept=not why,
        sqnr_db_before=round(before.sqnr_db, 3),
        sqnr_db_after=round(after.sqnr_db, 3),
        agreement_before=before.agreement,
        agreement_after=after.agreement,
        why=why,
    )
