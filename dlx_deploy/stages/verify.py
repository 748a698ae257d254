"""verify: every candidate against the teacher on the test split, by what ``evaluate`` found of each, and latency.

Latency is measured where the target can be reached, and estimated (and labelled so) elsewhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, Verify
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization.trials import Sensitivity, read_sensitivity, written
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Source, Stage, Step
from dlx_deploy.runtime.timing.latency import rounds_for
from dlx_deploy.runtime.timing.sampling import NEAR_S
from dlx_deploy.stages.evaluate import evaluated
from dlx_deploy.stages.support.budgets import missed_estimates, rehearse_latency
from dlx_deploy.stages.support.control import control_evidence, control_notes
from dlx_deploy.stages.support.costly import cost_of_int8
from dlx_deploy.stages.support.gates import judge_latency
from dlx_deploy.stages.support.judging import estimated, read_statistic, row_of, timings_of
from dlx_deploy.stages.support.regression import baseline_of, judge_regression, sliced
from dlx_deploy.stages.support.results import MEASURED, Latencies, Pairing, read_latencies
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of
from dlx_deploy.tasks.judging import METRIC, asked_metric, comparison_by, metric_file, watched
from dlx_deploy.tasks.slices import asked_slices
from dlx_deploy.tasks.verification import (
    REFERENCE,
    Accuracy,
    ByClass,
    ByClassScore,
    BySliceScore,
    Comparison,
    read_accuracy,
)

if TYPE_CHECKING:
    from dlx_deploy.devices.device import Device
    from dlx_deploy.runtime.statistics.groups import Group
    from dlx_deploy.runtime.statistics.resampled import Bounds
    from dlx_deploy.runtime.statistics.scored import Scored
    from dlx_deploy.runtime.timing.latency import Latency


__all__ = ["STAGE", "VerifyParams"]

SENSITIVITY = "sensitivity.json"
_OPTIONAL = ("sensitivity", "baseline", "released", "slices")
"""Inputs that not every configuration makes."""


class VerifyParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How is timed; ``candidates``: which inputs are compared, in the order of the table. ``metric``: ""
    is the task's own. ``bounds_slices``: slices have budgets and a score each, so their drops are resampled.
    """

    rounds: int = Verify().rounds
    min_seconds: float = 0.0
    max_seconds: float = Verify().max_seconds
    threads: int = Verify().threads
    candidates: tuple[str, ...]
    metric: str = ""
    bounds_slices: bool = False


def run(job: Job[VerifyParams]) -> Metrics:
    """Write ``accuracy.json``, ``latency.json``, and ``sensitivity.json`` as it is: what a gate that fails names."""
    models = {name: job.inputs[name] for name in job.params.candidates}
    accuracy = _accuracy(job, models)
    latencies = _measured(job, models, job.device) if job.device else estimated(models, job.target)
    (job.out / "accuracy.json").write_bytes(canonical_json(accuracy))
    (job.out / "latency.json").write_bytes(canonical_json(latencies))
    costs = job.inputs.get("sensitivity")
    (job.out / SENSITIVITY).write_bytes(costs.read_bytes() if costs else written(Sensitivity()))
    metrics = {f"{row.model}_{accuracy.metric}": row.score for row in accuracy.rows}
    shipped = accuracy.row(accuracy.shipped).score
    return {**metrics, f"shipped_{accuracy.metric}": shipped, "test_samples": float(accuracy.n)}


def _accuracy(job: Job[VerifyParams], models: Mapping[str, Path]) -> Accuracy:
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    comparison = watched(comparison_by(task_of(data), job.params.metric, job.inputs.get(METRIC)), job.progress)
    statistics = {name: read_statistic(job.inputs[evaluated(name)]) for name in models}
    targets, shipped = data.targets("test"), _name_of(job.inputs["shipped"], models)
    released = {name: read_statistic(job.inputs[name]) for name in ("released",) if name in job.inputs}
    classes: tuple[Group, ...] = ()
    class_bounds: tuple[Bounds, ...] = ()
    class_scores: tuple[Scored, ...] = ()
    if isinstance(comparison, ByClass):
        classes = comparison.by_class(statistics[REFERENCE], statistics[shipped], data.classes)
        class_bounds = comparison.class_bounds(statistics[REFERENCE], statistics[shipped], len(classes))
    elif isinstance(comparison, ByClassScore):
        class_scores = comparison.class_scores(statistics[REFERENCE], statistics[shipped], data.classes)
        class_bounds = comparison.class_bounds(statistics[REFERENCE], statistics[shipped], len(class_scores))
    judged = job.params.bounds_slices
    slices = sliced(comparison, job.inputs, (statistics[REFERENCE], statistics[shipped]), judged)
    return Accuracy(
        metric=comparison.name,
        title=comparison.title,
        judge=job.target.judge,
        n=len(targets),
        shipped=shipped,
        rows=tuple(row_of(name, path, comparison, statistics) for name, path in models.items()),
        facts=comparison.facts({comparison.target: targets}),
        control=control_evidence(comparison, statistics),
        classes=classes or msgspec.UNSET,
        class_scores=class_scores or msgspec.UNSET,
        slices=slices.groups or msgspec.UNSET,
        slice_scores=slices.scores or msgspec.UNSET,
        class_bounds=class_bounds or msgspec.UNSET,
        slice_bounds=slices.bounds or msgspec.UNSET,
        baseline=baseline_of(comparison, job.inputs, released, statistics[shipped], judged),
    )


def _name_of(shipped: Path, models: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(shipped.read_bytes()).digest()
    same = [name for name, path in models.items() if hashlib.sha256(path.read_bytes()).digest() == digest]
    return same[-1]


def _measured(job: Job[VerifyParams], models: Mapping[str, Path], device: Device) -> Latencies:
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.timing.sampling import BUILD_PACE, Sampling

    data = open_data(job.inputs["data"])
    samples = data.samples("test")
    sampling = Sampling(job.params.rounds, pace=BUILD_PACE, min_s=job.params.min_seconds, max_s=job.params.max_seconds)
    timed = device.latencies(models, samples[:1], sampling, job.params.threads, job.progress)
    latencies = timed.latencies
    return Latencies(
        kind=MEASURED,
        where=device.name,
        rows=timings_of(latencies),
        int8_speedup=_pairing(models, latencies),
        state=timed.state,
    )


def _pairing(models: Mapping[str, Path], timed: Mapping[str, Latency]) -> Pairing | None:
    """How the last candidate compares with what it was made from, where that is not the very same file."""
    from dlx_deploy.runtime.statistics.timings import paired_speedup
    from dlx_deploy.runtime.timing.latency import CONFIDENCE

    *_, source, last = models
    if models[source].read_bytes() == models[last].read_bytes():
        return None
    speed = paired_speedup(timed[source].block_p50_ms, timed[last].block_p50_ms, CONFIDENCE)
    return Pairing(against=source, ratio=speed.ratio, lower=speed.lower, upper=speed.upper)


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, whose inputs are the candidates under their own names, what was found of each, and its own two.

    Raises:
        ConfigError: a candidate comes too late to be evaluated.
        ValueError: a candidate has the name of another input.
    """
    late = [name for name in upstream.candidates if evaluated(name) not in upstream.outputs]
    if late:
        raise ConfigError(
            f"the candidate {', '.join(late)} is made behind the stage evaluate; rule: before it, to be judged; "
            "set 'after' of the stage that makes it to compile or to one before"
        )
    given = [name for name in (*STAGE.inputs[:2], *_OPTIONAL) if name not in _OPTIONAL or name in upstream.outputs]
    own: dict[str, Source] = {n: upstream.output(n) for n in (*map(evaluated, upstream.candidates), *given)}
    own |= metric_file(config.gate)
    if taken := own.keys() & upstream.candidates.keys():
        raise ValueError(f"a candidate is called {', '.join(taken)}, as an input of verify is; choose another name")
    stage = dataclasses.replace(STAGE, inputs=(*upstream.candidates, *own))
    step = Step(
        name="verify",
        stage=stage,
        params=VerifyParams(
            rounds=max([config.verify.rounds, *(rounds_for([p]) for p in config.gate.latency_budgets)]),
            min_seconds=min(NEAR_S, config.verify.max_seconds) if config.gate.latency_budgets else 0.0,
            max_seconds=config.verify.max_seconds,
            threads=config.verify.threads,
            candidates=tuple(upstream.candidates),
            metric=asked_metric(task_for(config.data), config.gate),
            bounds_slices=asked_slices(config.gate) and isinstance(_comparison(config), BySliceScore),
        ),
        inputs={**upstream.candidates, **own},
        seed=config.seed,
        gates=partial(judge, config),
        notes=partial(notes, config),
    )
    return [Bound(step, Offers(outputs={"accuracy": Output("verify", "accuracy.json")}))]


def check(setup: Setup[VerifyParams]) -> None:
    """Budgets by which what is verified can be judged."""
    _comparison(setup.config).check(setup.config.gate)


def judge(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[GateResult]:
    """The gates of a finished verification: the task's, and latency where a budget is set."""
    accuracy, budgets = read_accuracy(outputs), config.gate
    results = _comparison(config).judge(budgets, accuracy)
    cost = cost_of_int8(accuracy, read_sensitivity(outputs[SENSITIVITY])) if SENSITIVITY in outputs else ""
    if cost and results[0].verdict != "pass":
        results[0] = msgspec.structs.replace(results[0], text=f"{results[0].text}; {cost}")
    for percentile, limit_ms in budgets.latency_budgets.items():
        results.append(judge_latency(percentile, limit_ms, read_latencies(outputs), accuracy.shipped))
    results += judge_regression(_comparison(config), budgets, accuracy)
    return results


def notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What passes the gates and is not right all the same: by the task and the control, a choice timings contradict, a
    latency that is not measured here and far above its budget."""
    accuracy, latencies = read_accuracy(outputs), read_latencies(outputs)
    comparison = _comparison(config)
    of_task = comparison.shipped_notes(config.gate, accuracy)
    distilled = control_notes(comparison, accuracy, config.gate.confidence)
    late = missed_estimates(config.gate, latencies, accuracy.shipped)
    return [*of_task, *distilled, *_choice_notes(config, accuracy, latencies), *late]


def _comparison(config: Config) -> Comparison:
    return comparison_by(task_for(config.data), config.gate.metric)


def _choice_notes(config: Config, accuracy: Accuracy, latencies: Latencies) -> list[str]:
    """Where the timings of ``verify`` contradict what ``compile`` chose by its own."""
    speed, least = latencies.int8_speedup, config.compile.min_speedup
    if speed is None or config.quantize.precision != "auto":
        return []
    low, high = speed.lower or 0.0, math.inf if speed.upper is None else speed.upper
    as_source = accuracy.shipped == speed.against
    if (low >= least) if as_source else (high < least):
        chosen, seen = ("FP32", "faster") if as_source else ("INT8", "slower")
        return [
            f"compile chose {chosen} by its timings, and by those here INT8 is {seen} than compile.min_speedup "
            f"{least:g} asks: {low:.3g} to {high:.3g} times as fast as {speed.against}. The machine's state changed in "
            "between; build again with more compile.rounds, or set quantize.precision"
        ]
    return []


STAGE = Stage(
    name="verify",
    version=13,
    params=VerifyParams,
    inputs=("shipped", "data", "sensitivity"),
    outputs=("accuracy.json", "latency.json", SENSITIVITY),
    run=run,
    check=check,
    bind=bind,
    rehearse=rehearse_latency,
    uses=("judge", "kind", "arch", "device_tree_model", "title", "name", "roofline", "power_mode", "precisions"),
    tools=("numpy", "onnx", "onnxruntime"),
    measures_host=True,
    times_host=True,
)
