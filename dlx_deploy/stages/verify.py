"""verify: every candidate against the teacher on the test split, image by image, and latency.

Latency is measured where this machine is the target, and estimated (and labelled so) elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dlx_deploy.config import Gate, Verify
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Job, Metrics, Stage

if TYPE_CHECKING:
    import numpy as np

    from dlx_deploy.runtime.commands.bench import Latency

__all__ = [
    "MODELS",
    "STAGE",
    "Accuracy",
    "Latencies",
    "Pairing",
    "Row",
    "Timing",
    "judge",
    "judge_accuracy",
    "judge_floor",
]

MODELS = ("teacher", "student", "pruned", "quantized")
"""The candidates in the order of the table; ``shipped`` is one of them, found by its bytes."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the test split. b: teacher right and model wrong; c: the reverse."""

    model: str
    top1: float
    b: int
    c: int
    size_bytes: int
    macs: int
    parameters: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``accuracy.json``: deterministic, so it can be shipped. ``judge``: how the graphs were run.

    ``largest_class`` counts the test samples of the most frequent label, 0 where that is not known: who always answers
    it is right so often.
    """

    schema: int
    judge: str
    n: int
    shipped: str
    rows: tuple[Row, ...]
    largest_class: int = 0

    def row(self, model: str) -> Row:
        """The row of ``model``."""
        return next(r for r in self.rows if r.model == model)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One model's latency at batch 1. A measurement has bounds on p90 (upper: ``None`` with too few timings, lower: 0;
    ``by_slowest``: the upper one is a multiple of the slowest timing, as they come in bursts), an estimate has a range.
    """

    model: str
    p50_ms: float
    p90_ms: float | None = None
    p90_upper_ms: float | None = None
    p90_lower_ms: float | None = None
    by_slowest: bool = False
    low_ms: float | None = None
    high_ms: float | None = None


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast ``quantized`` is as ``against``, the network that it was made from, by paired timings."""

    against: str
    ratio: float
    lower: float | None
    upper: float | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """``latency.json``: ``kind`` says what the numbers are, ``where`` on what they hold."""

    schema: int
    kind: str
    where: str
    rows: tuple[Timing, ...]
    int8_speedup: Pairing | None = None


def run(job: Job[Verify]) -> Metrics:
    """Write ``accuracy.json``, ``teacher.npy`` (int64[n], the teacher's top-1 classes) and ``latency.json``."""
    models = {name: job.inputs[name] for name in MODELS if name in job.inputs}
    accuracy = _accuracy(job, models)
    latencies = _measured(job, models) if _here(job) else _estimated(job, models)
    (job.out / "accuracy.json").write_bytes(canonical_json(accuracy))
    (job.out / "latency.json").write_bytes(canonical_json(latencies))
    metrics = {f"{row.model}_top1": row.top1 for row in accuracy.rows}
    return {**metrics, "shipped_top1": accuracy.row(accuracy.shipped).top1, "test_samples": float(accuracy.n)}


def judge(budgets: Gate, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[GateResult]:
    """The gates of a finished verification: accuracy always, a floor and latency where a budget is set, chance where
    no floor says more."""
    accuracy = msgspec.json.decode(outputs["accuracy.json"].read_bytes(), type=Accuracy)
    results = [judge_accuracy(budgets, accuracy)]
    if budgets.min_accuracy:
        results.append(judge_floor(budgets, accuracy))
    elif accuracy.largest_class and not budgets.allow_chance:
        results.append(_judge_chance(budgets, accuracy))
    if budgets.max_latency_p90_ms:
        latencies = msgspec.json.decode(outputs["latency.json"].read_bytes(), type=Latencies)
        results.append(_judge_latency(budgets.max_latency_p90_ms, latencies, accuracy.shipped))
    return results


def judge_accuracy(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Non-inferiority of the shipped model to its teacher (Tango's score bound, see ``runtime.statistics.drops``)."""
    from dlx_deploy.runtime.statistics.drops import non_inferiority

    row = accuracy.row(accuracy.shipped)
    verdict = non_inferiority(row.b, row.c, accuracy.n, budgets.max_drop, budgets.confidence)
    text = verdict.explain()
    if verdict.verdict != "pass":
        text += "; to improve: train and distill longer, prune less, or raise gate.max_drop"
    return GateResult(
        gate="accuracy",
        metric="top1_drop",
        value=verdict.drop,
        bound=verdict.upper,
        limit=budgets.max_drop,
        verdict=verdict.verdict,
        text=text,
    )


def judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the shipped model is right often enough (Clopper and Pearson, see ``runtime.statistics.floors``)."""
    from dlx_deploy.runtime.statistics.floors import accuracy_floor

    found = accuracy_floor(_right(accuracy, accuracy.shipped), accuracy.n, budgets.min_accuracy, budgets.confidence)
    text = f"{accuracy.shipped}: {found.explain()}"
    if budgets.min_accuracy * accuracy.n <= accuracy.largest_class:
        share = accuracy.largest_class / accuracy.n
        text += (
            f"; always answering the largest class would be right on {100 * share:.2f} %, so this floor shows little"
        )
    if found.verdict == "fail":
        text += "; train a better teacher, compress less, or lower gate.min_accuracy"
    return GateResult(
        gate="min_accuracy",
        metric="top1",
        value=found.accuracy,
        bound=found.upper if found.verdict == "fail" else found.lower,
        limit=budgets.min_accuracy,
        verdict=found.verdict,
        text=text,
    )


def _judge_chance(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the teacher is clearly better than always answering the largest class: nothing in between is undecided.

    A drop against a teacher at chance level means nothing, so what cannot be told from chance is refused.
    """
    from dlx_deploy.runtime.statistics.floors import accuracy_floor

    n, largest = accuracy.n, accuracy.largest_class
    share = largest / n
    found = accuracy_floor(_right(accuracy, "teacher"), n, min(share, 1 - 0.5 / n), budgets.confidence)
    clearly = found.lower > share
    word = "clearly" if clearly else "not clearly"
    text = (
        f"the teacher is right on {100 * found.accuracy:.2f} % of {n} test samples, "
        f"at least {100 * found.lower:.2f} % at {budgets.confidence:.4g} confidence; "
        f"{word} better than always answering the largest class, which is right on {100 * share:.2f} %"
    )
    if not clearly:
        if found.samples_needed and share < 1:
            text += f" (about {found.samples_needed} test samples could show it)"
        text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
    return GateResult(
        gate="chance",
        metric="teacher_top1",
        value=found.accuracy,
        bound=found.lower,
        limit=share,
        verdict="pass" if clearly else "fail",
        text=text,
    )


def _right(accuracy: Accuracy, model: str) -> int:
    return round(accuracy.row(model).top1 * accuracy.n)


def _judge_latency(limit_ms: float, latencies: Latencies, shipped: str) -> GateResult:
    timing = next(t for t in latencies.rows if t.model == shipped)
    if latencies.kind != "measured":
        text = (
            f"not measured: only {latencies.where} can; run on it: dlx-deploy bench PACKAGE --max-p90-ms {limit_ms:g}"
        )
        return _latency_result(limit_ms, None, None, "pending", text)
    upper = timing.p90_upper_ms
    lower = timing.p90_ms if timing.p90_lower_ms is None else timing.p90_lower_ms
    most = "an unknown limit" if upper is None else f"{upper:.4g} ms"
    how = "by a multiple of the slowest, as the timings come in bursts" if timing.by_slowest else "at 95 % confidence"
    text = f"p90 is {timing.p90_ms:.4g} ms, at most {most} {how}; budget {limit_ms:g} ms"
    if upper is not None and upper <= limit_ms:
        return _latency_result(limit_ms, timing.p90_ms, upper, "pass", text)
    if lower is not None and lower > limit_ms:
        text = f"p90 is {timing.p90_ms:.4g} ms, at least {lower:.4g} ms at 95 % confidence; budget {limit_ms:g} ms"
        return _latency_result(limit_ms, timing.p90_ms, lower, "fail", text)
    text += "; to decide: raise verify.rounds"
    if timing.by_slowest:
        text += ", or build when the machine is quieter"
    return _latency_result(limit_ms, timing.p90_ms, upper, "undecided", text)


def _latency_result(limit: float, value: float | None, bound: float | None, verdict: Any, text: str) -> GateResult:
    return GateResult(
        gate="latency", metric="latency_p90_ms", value=value, bound=bound, limit=limit, verdict=verdict, text=text
    )


def _accuracy(job: Job[Verify], models: Mapping[str, Path]) -> Accuracy:
    import numpy as np

    from dlx_deploy.graph.evaluation import run_onnx
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    inputs, labels = data.split("test")
    shipped, logits = _name_of(job.inputs["shipped"], models), {}
    for done, (name, path) in enumerate(models.items()):
        job.progress(done, len(models), f"{name} on {len(inputs)} test inputs")
        exact = job.target.judge == "exact-qdq"
        logits[name] = run_onnx(path, inputs, exact_qdq=exact, threads=job.threads, pad_id=data.padding)
    np.save(job.out / "teacher.npy", logits["teacher"].argmax(axis=1).astype(np.int64), allow_pickle=False)
    rows = tuple(_row(name, path, logits, labels) for name, path in models.items())
    largest = int(np.bincount(labels).max())
    return Accuracy(schema=1, judge=job.target.judge, n=len(labels), shipped=shipped, rows=rows, largest_class=largest)


def _row(name: str, path: Path, logits: Mapping[str, np.ndarray], labels: np.ndarray) -> Row:
    from dlx_deploy.graph.cost import model_summary
    from dlx_deploy.graph.evaluation import paired_counts, top1

    b, c, _ = paired_counts(logits["teacher"], logits[name], labels)
    summary = model_summary(path)
    return Row(
        model=name,
        top1=top1(logits[name], labels),
        b=b,
        c=c,
        size_bytes=summary.size_bytes,
        macs=summary.macs,
        parameters=summary.parameters,
    )


def _name_of(shipped: Path, models: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(shipped.read_bytes()).digest()
    same = [name for name, path in models.items() if hashlib.sha256(path.read_bytes()).digest() == digest]
    return same[-1]


def _here(job: Job[Verify]) -> bool:
    from dlx_deploy.targets import is_this_host

    return is_this_host(job.target)


def _measured(job: Job[Verify], models: Mapping[str, Path]) -> Latencies:
    from dlx_deploy.graph.latency import interleaved_latency
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.targets import read_host

    data = open_data(job.inputs["data"])
    inputs, _ = data.split("test")
    job.progress(0, 1, f"timing {len(models)} models in turn")
    found = interleaved_latency(models, inputs[:1], job.params.rounds, job.params.threads, data.padding)
    rows = tuple(
        Timing(
            model=name,
            p50_ms=t.p50_ms,
            p90_ms=t.p90_ms,
            p90_upper_ms=t.p90_upper_ms,
            p90_lower_ms=t.p90_lower_ms or 0.0,
            by_slowest=t.by_slowest,
        )
        for name, t in found.items()
    )
    where = f"this machine ({read_host().cpu_model})"
    return Latencies(schema=1, kind="measured", where=where, rows=rows, int8_speedup=_pairing(models, found))


def _pairing(models: Mapping[str, Path], found: Mapping[str, Latency]) -> Pairing | None:
    """How ``quantized`` compares with what it was made from, where that is not the very same file."""
    from dlx_deploy.runtime.commands.bench import CONFIDENCE
    from dlx_deploy.runtime.statistics.timings import paired_speedup

    *_, source = (name for name in models if name != "quantized")
    if "quantized" not in models or models[source].read_bytes() == models["quantized"].read_bytes():
        return None
    speed = paired_speedup(found[source].block_p50_ms, found["quantized"].block_p50_ms, CONFIDENCE)
    return Pairing(against=source, ratio=speed.ratio, lower=speed.lower, upper=speed.upper)


def _estimated(job: Job[Verify], models: Mapping[str, Path]) -> Latencies:
    from dlx_deploy.graph.cost import layer_costs
    from dlx_deploy.targets.roofline import estimate

    rows = []
    for name, path in models.items():
        guess = estimate(layer_costs(path), job.target)
        rows.append(Timing(model=name, p50_ms=guess.latency_ms, low_ms=guess.low_ms, high_ms=guess.high_ms))
    return Latencies(schema=1, kind="estimate (roofline, not measured)", where=job.target.title, rows=tuple(rows))


STAGE = Stage(
    name="verify",
    version=4,
    params=Verify,
    inputs=(*MODELS, "shipped", "data"),
    outputs=("accuracy.json", "latency.json", "teacher.npy"),
    run=run,
    uses=("judge", "kind", "arch", "device_tree_model", "title", "name", "roofline", "power_mode", "precisions"),
    tools=("numpy", "onnx", "onnxruntime"),
    measures_host=True,
)
