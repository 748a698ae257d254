"""What can be told of the gates before ``verify`` runs: a test split that is too small, a teacher that learned nothing.

Pure functions of a finished step's metrics and of the budgets, like the gates; a note stops nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.config import Config, Gate
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.stages.verify import Accuracy, Latencies

__all__ = ["compile_notes", "data_notes", "teacher_notes", "verify_notes"]

_FLIPS = 0.02
"""The share of answers that a good student changes, for better and worse alike; on the digits it is 2 to 4 %."""


_LEAST_DROP = 1e-9
"""Under this budget no test split is large enough: it is none."""


def data_notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Each budget that the test split is too small for, whatever is built from it."""
    from dlx_deploy.runtime.statistics.floors import fewest_samples

    budgets = config.gate
    n = int(metrics.get("test_images", metrics.get("test_texts", 0)))
    notes = _drop_notes(budgets, n)
    level = f"at gate.confidence {budgets.confidence:g}"
    if budgets.min_accuracy:
        least = fewest_samples(budgets.min_accuracy, budgets.confidence)
        if n < least:
            notes.append(
                f"the test split has {n} samples; gate.min_accuracy {budgets.min_accuracy:g} {level} takes at least "
                f"{least}, all of them right: add test samples or lower the floor"
            )
    elif not budgets.allow_chance:
        classes = max(int(metrics.get("classes", 2)), 2)
        least = fewest_samples(1 / classes, budgets.confidence)
        if n < least:
            notes.append(
                f"the test split has {n} samples of {classes} classes; that a teacher is better than always answering "
                f"the largest class takes at least {least} {level}: add test samples, or set gate.allow_chance = true"
            )
    return notes


def _drop_notes(budgets: Gate, n: int) -> list[str]:
    least, usual = _fewest(0, budgets), _fewest(_FLIPS, budgets)
    rule = f"gate.max_drop {budgets.max_drop:g} at gate.confidence {budgets.confidence:g}"
    if least is None:
        return [f"{rule} can only be shown of a network that is clearly better than its teacher; allow a drop"]
    if n >= (usual or least):
        return []
    flips = f"{usual} if {100 * _FLIPS:g} % of the answers change"
    if n < least:
        return [
            f"the test split has {n} samples, too few to decide: {rule} takes at least {least} if not one answer "
            f"differs from the teacher's, and {flips}; add test samples, or raise the budget"
        ]
    return [
        f"the test split has {n} samples, which may be too few to decide: {rule} takes {least} if not one answer "
        f"differs from the teacher's, and {flips}"
    ]


def _fewest(flips: float, budgets: Gate) -> int | None:
    """The samples that show no drop beyond the budget where there is none and this share of answers changes.

    ``None``: there is no such number.
    """
    from dlx_deploy.runtime.statistics.drops import drop_upper_bound

    if budgets.max_drop < _LEAST_DROP:
        return None

    def enough(n: int) -> bool:
        return drop_upper_bound(n * flips / 2, n * flips / 2, n, budgets.confidence) <= budgets.max_drop

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def teacher_notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Whether the validation split already says that the teacher will miss the floor or is at chance level."""
    from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound, accuracy_upper_bound

    budgets = config.gate
    n = int(metrics.get("validation_samples", 0))
    if not n or math.isnan(metrics["validation_top1"]):
        return []
    top1, share = metrics["validation_top1"], metrics["validation_largest_class"]
    right = round(top1 * n)
    seen = f"the teacher is right on {100 * top1:.2f} % of {n} validation samples"
    floor = budgets.min_accuracy
    if floor and accuracy_upper_bound(right, n, budgets.confidence) < floor:
        return [f"{seen}, under gate.min_accuracy {floor:g}: what is built from it will hardly pass; train it further"]
    if not floor and not budgets.allow_chance and accuracy_lower_bound(right, n, budgets.confidence) <= share:
        return [
            f"{seen}, not clearly more than always answering the largest class ({100 * share:.2f} %): if the test "
            "split says the same, nothing will be packaged; train it further, or set gate.allow_chance = true"
        ]
    return []


def compile_notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Where the timings of INT8 and FP32 decided nothing."""
    least = config.compile.min_speedup
    low, high = metrics.get("int8_speedup_lower", 0.0), metrics.get("int8_speedup_upper", math.inf)
    if "int8_speedup" not in metrics or low >= least or high < least:
        return []
    return [
        f"INT8 is {low:.3g} to {high:.3g} times as fast as FP32 here, and compile.min_speedup is {least:g}: undecided, "
        "so FP32 stays; raise compile.rounds, or set quantize.precision to int8 or fp32"
    ]


def verify_notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What passes the gates and is not right all the same: an answer at chance, a choice that timings contradict."""
    latencies = msgspec.json.decode(outputs["latency.json"].read_bytes(), type=Latencies)
    accuracy = msgspec.json.decode(outputs["accuracy.json"].read_bytes(), type=Accuracy)
    return [*_chance_notes(config.gate, accuracy), *_choice_notes(config, accuracy, latencies)]


def _chance_notes(budgets: Gate, accuracy: Accuracy) -> list[str]:
    """A wide ``max_drop`` lets a network pass that fell to chance level beside a good teacher."""
    from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound

    n, largest, top1 = accuracy.n, accuracy.largest_class, accuracy.row(accuracy.shipped).top1
    if not largest or budgets.allow_chance or budgets.min_accuracy:
        return []
    if accuracy_lower_bound(round(top1 * n), n, budgets.confidence) > largest / n:
        return []
    return [
        f"{accuracy.shipped}, which the gate lets into the package if it passes, is right on {100 * top1:.2f} % of {n} "
        f"test samples, not clearly more than always answering the largest class ({100 * largest / n:.2f} %): set "
        "gate.min_accuracy, or lower gate.max_drop"
    ]


def _choice_notes(config: Config, accuracy: Accuracy, latencies: Latencies) -> list[str]:
    """Where the timings of ``verify`` contradict what ``compile`` chose by its own."""
    speed, least = latencies.int8_speedup, config.compile.min_speedup
    if speed is None or config.quantize.precision != "auto":
        return []
    low, high = speed.lower or 0.0, math.inf if speed.upper is None else speed.upper
    if (accuracy.shipped == "quantized" and high < least) or (accuracy.shipped == speed.against and low >= least):
        chosen, seen = ("INT8", "slower") if accuracy.shipped == "quantized" else ("FP32", "faster")
        return [
            f"compile chose {chosen} by its timings, and by those here INT8 is {seen} than compile.min_speedup "
            f"{least:g} asks: {low:.3g} to {high:.3g} times as fast as {speed.against}. The machine's state changed in "
            "between; build again with more compile.rounds, or set quantize.precision"
        ]
    return []
