"""What is said of the layers that cost most in INT8."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.graph.quantization.trials import LayerSensitivity, Sensitivity, Trials
from dlx_deploy.runtime.words import line, percent, points
from dlx_deploy.tasks.verification import Accuracy

__all__ = ["cost_of_int8", "costly_layers", "trial_notes"]

NAMED = 3
"""Layers in a sentence; ``sensitivity.json`` has all."""


def trial_notes(trials: Trials, sensitivity: Sensitivity) -> list[str]:
    """Nothing where INT8 kept to its budget without being trained for it, or was not held against one."""
    trained = next((trial for trial in trials.trials if trial.trained), None)
    if not sensitivity.layers and trained is None:
        return []
    first = trials.trials[0]
    seen = (
        f"INT8 misses the budget on {trials.samples} validation samples: {trials.title} {percent(first.score)}, FP32 "
        f"{percent(trials.fp32_score or 0.0)}, the teacher {percent(trials.reference_score or 0.0)}"
    )
    if trained is not None:
        seen += f"; trained with its rounding (qat) {percent(trained.score)}"
    if not sensitivity.layers:
        return [seen]
    if not trials.restored:
        remedy = "; quantize.precision = 'auto', without quantize.plan and [qat], would restore them"
        return [f"{seen}; {trials.note}; {costly_layers(sensitivity.layers)}{remedy}"]
    held = next((t for t in reversed(trials.trials) if t.restored == trials.restored), None)
    with_it = f": {percent(held.score)}" if held else ""
    return [f"{seen}; {trials.note}{with_it}; {costly_layers(sensitivity.layers)}; trials.json has each trial"]


def costly_layers(layers: Sequence[LayerSensitivity]) -> str:
    """The first few of ``layers``, and what each costs."""
    named = ", ".join(f"{line(' and '.join(x.layers))} {x.sqnr_db:.1f} dB" for x in layers[:NAMED])
    return f"the costliest layers (signal to noise of the answers with that layer alone in INT8): {named}"


def cost_of_int8(accuracy: Accuracy, sensitivity: Sensitivity) -> str:
    """What the quantized graph loses on the test split against what it was made from, and what would lose less; empty
    where it is not what ships, or loses nothing."""
    *_, source, quantized = accuracy.rows if len(accuracy.rows) > 1 else (None, None)
    if source is None or quantized is None or quantized.model != accuracy.shipped or quantized.score >= source.score:
        return ""
    seen = f"quantization loses {points(source.score - quantized.score)} of it (against {source.model})"
    if not sensitivity.layers:
        return (
            f"{seen}; INT8 kept to its budget on the validation split, or was not held against one: a smaller "
            "quantize.max_drop restores the costliest layers to floating point"
        )
    left = sensitivity.left[:NAMED]
    names = [line(name) for layer in left for name in layer.layers]
    if not left:
        return seen
    return f"{seen}; of those still in INT8, {costly_layers(left)}; quantize.exclude = {names!r} restores them"
