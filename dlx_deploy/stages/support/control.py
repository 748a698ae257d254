"""What distillation gave: a student beside the same network, trained as long and without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from dlx_deploy.runtime.words import percent, points
from dlx_deploy.tasks.verification import CONTROL, REFERENCE, STUDENT, Accuracy, Comparison, Control, Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx_deploy.graph.samples import Arrays

__all__ = ["Gain", "control_evidence", "control_notes", "gain_of"]


@dataclass(frozen=True)
class Gain:
    """Differences of scores, fractions (0.01 is one point), and their one-sided bounds.

    ``value``: the student's less the control's. ``lead``: the teacher's less the control's.
    """

    student: float
    control: float
    value: float
    lower: float
    upper: float
    lead: float
    lead_lower: float
    samples: int
    confidence: float

    @property
    def text(self) -> str:
        """A sentence for people."""
        return (
            f"{STUDENT} {percent(self.student)}, {CONTROL} (the same network, trained without a teacher) "
            f"{percent(self.control)}: {100 * self.value:+.2f} points, between {100 * self.lower:+.2f} and "
            f"{100 * self.upper:+.2f} (each at {100 * self.confidence:g} %) on these {self.samples} samples; other "
            "seeds move both"
        )


def control_evidence(comparison: Comparison, statistics: Mapping[str, Arrays]) -> Control | msgspec.UnsetType:
    """Of the statistics by candidate, if there is a control among them."""
    if CONTROL not in statistics or STUDENT not in statistics:
        return msgspec.UNSET
    student, control, teacher = (statistics[name] for name in (STUDENT, CONTROL, REFERENCE))
    return Control(
        gain=comparison.evidence(control, student),
        loss=comparison.evidence(student, control),
        lead=comparison.evidence(control, teacher),
    )


def gain_of(comparison: Comparison, accuracy: Accuracy, confidence: float) -> Gain | None:
    """What distillation gave on the test split; ``None`` without a control."""
    held = accuracy.control
    if isinstance(held, msgspec.UnsetType):
        return None

    def drop(reference: str, model: str, evidence: Evidence) -> tuple[float, float]:
        rows = replace(accuracy.row(reference), model=REFERENCE), replace(accuracy.row(model), evidence=evidence)
        seen = comparison.drop(rows[1], replace(accuracy, rows=rows), confidence)
        return seen.value, seen.upper

    (value, upper), (_, shortfall) = drop(STUDENT, CONTROL, held.loss), drop(CONTROL, STUDENT, held.gain)
    deficit, worst = drop(CONTROL, REFERENCE, held.lead)
    return Gain(
        student=accuracy.row(STUDENT).score,
        control=accuracy.row(CONTROL).score,
        value=value,
        lower=-shortfall,
        upper=upper,
        lead=-deficit,
        lead_lower=-worst,
        samples=accuracy.n,
        confidence=confidence,
    )


def control_notes(comparison: Comparison, accuracy: Accuracy, confidence: float) -> list[str]:
    """A student that is not clearly better than the control, and a teacher that is not."""
    gain = gain_of(comparison, accuracy, confidence)
    if gain is None:
        return []
    level, notes = f"at {confidence:.4g} confidence on {gain.samples} test samples", []
    if gain.upper < 0:
        notes.append(
            f"distillation made the student worse: {points(-gain.value)} under the control, at least "
            f"{points(-gain.upper)} {level}; lower distill.alpha or distill.temperature, or leave the teacher out"
        )
    elif gain.lower <= 0:
        notes.append(
            f"distillation is not shown to help: the student is {100 * gain.value:+.2f} points beside the control, at "
            f"least {100 * gain.lower:+.2f} {level}; more test samples or another seed would tell"
        )
    if gain.lead_lower <= 0:
        notes.append(
            f"the teacher is hardly better than the control: {100 * gain.lead:+.2f} points, at least "
            f"{100 * gain.lead_lower:+.2f} {level}; it has little to teach: train it further, or take a larger one"
        )
    return notes
