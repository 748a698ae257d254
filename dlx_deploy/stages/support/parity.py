"""What a package carries of the builder's answers to hundreds of test samples, and how close a device must come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays, Samples
    from dlx_deploy.runtime.package.parity import ParityBounds, ParityTable
    from dlx_deploy.runtime.tasks.task import Task
    from dlx_deploy.runtime.untyped import Array, JsonTable

__all__ = ["CHOSEN", "Judge", "kept_answers", "kept_features", "make_parity", "parity_rows", "write_answers"]

CHOSEN = "chosen for parity"
"""A column beside the targets, bool[n]: the samples whose answers are kept."""
_DIGESTS, _ANSWERS, _DECISIONS, _FEATURES = "digests", "answers/", "decisions", "features/"

ENGINE_DB = {"int8": 26.0, "fp16": 40.0, "fp32": 60.0}
"""The least signal-to-noise ratio of an engine's answers, by precision. Results that are off by a step of their
precision (``ENGINE_BENDS``) leave 33 to 35 dB in INT8 (ResNet-20, Lite0 and the default student), ONNX Runtime's own
INT8 kernels 30 and 36 (the first and the last of these); a filter zeroed or two swapped leave 10 to 26. FP32: no kernel
moved logits by more than 2e-6 of the largest, and the self-test allows a hundred times that."""
NATIVE_INT8_DB = 20.0
"""Of ONNX Runtime's INT8 kernels in another version or on another CPU: up to 4.8e-2 of the largest logit apart."""
EXACT_DB = {"int8": 50.0, "fp16": 50.0, "fp32": 60.0}
"""In exact arithmetic, where versions of ONNX Runtime give convolutional networks the same bits."""
ENGINE_BENDS = {"int8": 2.0**-6, "fp16": 2.0**-10, "fp32": 2.0**-18}
"""By how much each result is bent to see what honest arithmetic may do to this model: about a step."""
WORST_DB = 8.0
"""The one worst sample of hundreds may be so much nearer to the noise: measured 5 to 10 (INT8)."""
SAFETY_DB = 6.0
"""Twice the noise that bending made."""
LEAST_DB = 10.0
"""Under this a comparison shows nothing; a model so close to chaos is refused on other machines."""
DIFFERING = {"int8": 0.02, "fp16": 0.005, "fp32": 0.002}
"""The share of samples that an honest engine may decide otherwise. INT8: up to 1.4 % (ResNet-20)."""
EXACT_DIFFERING = 0.005
BENT_SAMPLES = 64
CONFIDENCE = 0.95
MOST_DIFFERING = 0.5


@dataclass(frozen=True)
class Judge:
    """Whose answers to which ``samples`` are bent: ``model``, judged in ``exact`` arithmetic or by the CPU's kernels.

    ``threads`` (0: a core each) run batches side by side, and the bounds are the same for any number.
    """

    model: bytes
    samples: Samples
    exact: bool
    threads: int


def parity_rows(count: int, most: int) -> Sequence[int]:
    """Up to ``most`` of ``count`` samples, evenly over all: a split may be sorted by class."""
    return [i * count // most for i in range(most)] if count > most else range(count)


def kept_answers(outputs: Arrays, targets: Arrays, device: Task) -> Arrays:
    """Sketches, decisions and features of the outputs of those samples of a batch that are ``CHOSEN``; of none, no
    rows."""
    import numpy as np

    from dlx_deploy.runtime.package.parity import decisions_of
    from dlx_deploy.runtime.tasks.features import output_features
    from dlx_deploy.runtime.tasks.sketches import sketched

    rows = np.flatnonzero(targets[CHOSEN])
    some = {name: values[rows if len(rows) else slice(1)] for name, values in outputs.items()}
    kept: Arrays = {f"{_ANSWERS}{name}": one for name, one in sketched(some, device.outputs.tensors).items()}
    if (decisions := decisions_of(device.outputs, some)) is not None:
        kept[_DECISIONS] = decisions
    kept.update({f"{_FEATURES}{name}": values for name, values in output_features(device.outputs, some).items()})
    return {name: values[: len(rows)] for name, values in kept.items()}


def write_answers(path: Path, samples: Samples, device: Task, kept: Arrays) -> None:
    """Write what was ``kept`` of the answers to ``samples``, their own features, and what finds these again."""
    import numpy as np

    from dlx_deploy.runtime.tasks.features import input_features

    feeds = samples.feed()
    features = {f"{_FEATURES}{name}": values for name, values in input_features(device.inputs, feeds).items()}
    np.savez(path, **{_DIGESTS: device.inputs.digests(feeds)}, **features, **kept)  # type: ignore[arg-type]  # its stub takes them for allow_pickle


def kept_features(path: Path) -> Arrays:
    """The features of the samples whose answers are at ``path``, and of these answers."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name.removeprefix(_FEATURES): arrays[name] for name in arrays if name.startswith(_FEATURES)}


def make_parity(path: Path, judge: Judge, device: Task, recipe: JsonTable) -> ParityTable | None:
    """The answers at ``path`` with their bounds; ``None`` of answers that cannot be kept small.

    The samples of ``judge`` are those of the answers.
    """
    import numpy as np

    from dlx_deploy.runtime.package.parity import ParityTable

    with np.load(path, allow_pickle=False) as arrays:
        kept = dict(arrays)
    answers = {name.removeprefix(_ANSWERS): kept[name] for name in kept if name.startswith(_ANSWERS)}
    if not answers:
        return None
    kind = _kind(recipe)
    native = NATIVE_INT8_DB if kind == "int8" else ENGINE_DB[kind]
    plain = ParityTable(kept[_DIGESTS], answers, kept.get(_DECISIONS), _bounds(kind, native))
    return _bent_bounds(plain, judge, device, kind) if judge.exact else plain


def _kind(recipe: JsonTable) -> str:
    """The coarsest precision that an engine may compute in."""
    half = "fp16" in (recipe["precision"], recipe["elsewhere"])
    return "int8" if recipe["precision"] in ("int8", "fp8", "bf16") else "fp16" if half else "fp32"


def _answers(model: bytes, samples: Samples, device: Task, threads: int) -> tuple[Arrays, Array | None]:
    """Sketches by output, and decisions; in exact arithmetic, a batch at a time: large maps would fill the memory."""
    import numpy as np

    from dlx_deploy.graph.execution.evaluation import BATCH, batches_at_once, run_in_batches
    from dlx_deploy.runtime.package.parity import decisions_of
    from dlx_deploy.runtime.tasks.arrays import block_rows, joined
    from dlx_deploy.runtime.tasks.sketches import sketched

    tensors = device.outputs.tensors
    size = block_rows((*device.inputs.tensors, *tensors), BATCH)
    sketches, decided = [], []
    at_once = batches_at_once(model, samples, size, threads)
    for outputs in run_in_batches(model, samples, True, size, at_once):
        sketches.append(sketched(outputs, tensors))
        decided.append(decisions_of(device.outputs, outputs))
    decisions = [one for one in decided if one is not None]
    return joined(sketches), np.concatenate(decisions) if decisions else None


def _bounds(kind: str, decibels: float) -> ParityBounds:
    from dlx_deploy.runtime.package.parity import ParityBounds

    return ParityBounds(decibels, decibels - WORST_DB, DIFFERING[kind])


def _bent_bounds(plain: ParityTable, judge: Judge, device: Task, kind: str) -> ParityTable:
    """``plain`` with the bounds of this model: wider where honest arithmetic already moves its answers much."""
    from dlx_deploy.graph.checks.spread import BEND, bent
    from dlx_deploy.runtime.backends.exact import exact_model

    twin, samples = exact_model(judge.model), judge.samples[:BENT_SAMPLES]
    engine, other_cpu = (
        _answers(bent(twin, bend), samples, device, judge.threads) for bend in (ENGINE_BENDS[kind], BEND)
    )
    other = _widened(_bounds(kind, ENGINE_DB[kind]), plain, *engine)
    exact = replace(_bounds(kind, EXACT_DB[kind]), differing=EXACT_DIFFERING)
    return replace(plain, other=other, exact=_widened(exact, plain, *other_cpu))


def _widened(bounds: ParityBounds, plain: ParityTable, answers: Arrays, decisions: Array | None) -> ParityBounds:
    """``bounds`` that the bent ``answers`` to the first samples keep, with room for twice as much noise."""
    import numpy as np

    from dlx_deploy.runtime.commands.parity import FALSE_ALARMS, decided_otherwise, noise_db
    from dlx_deploy.runtime.package.parity import ParityBounds
    from dlx_deploy.runtime.statistics.floors import accuracy_upper_bound, most_of

    sqnr, worst, share = bounds.sqnr_db, bounds.worst_db, bounds.differing
    for name, values in answers.items():
        apart = values.astype(np.float64) - plain.answers[name][: len(values)]
        seen = noise_db((apart**2).sum(axis=1).tolist(), plain.answers[name])
        sqnr, worst = min(sqnr, seen[0] - SAFETY_DB), min(worst, seen[1] - SAFETY_DB)
    if decisions is not None and plain.decisions is not None:
        count = len(decisions)
        turned = int(decided_otherwise(decisions, plain.decisions[:count]).sum())
        if turned > most_of(count, share, FALSE_ALARMS):
            share = min(accuracy_upper_bound(turned, count, CONFIDENCE), MOST_DIFFERING)
    return ParityBounds(max(sqnr, LEAST_DB), max(worst, LEAST_DB - WORST_DB), share)
