"""One trial: a build up to what would be shipped, weighed on the validation split, stopped once it is hopeless."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
from msgspec import structs

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError, DataError, StageFailed, StoreError
from dlx_deploy.pipeline.check import check_build
from dlx_deploy.pipeline.execution import BuildResult, Watcher
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Metrics, Output, Source, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.words import said
from dlx_deploy.search.hopeless import hopeless
from dlx_deploy.search.outcome import Figures, Miss, Outcome, misses, score_misses
from dlx_deploy.stages.score import STATISTIC, scoring
from dlx_deploy.stages.support.results import MEASURED, read_latencies
from dlx_deploy.stages.weigh import SHIPPED, Weighed, WeighParams
from dlx_deploy.stages.weigh import STAGE as WEIGH
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.judging import asked_metric, comparison_by, metric_file
from dlx_deploy.tasks.verification import REFERENCE, Comparison, read_accuracy

__all__ = ["TrialStore", "run_trial"]

TEACHER_SCORE, SHIPPED_SCORE = "score-teacher", "score-shipped"


class TrialStore(Store):
    """The store of all builds, with the manifests of trials apart: none of them is a target's newest build."""

    def __init__(self, root: Path, folder: Path) -> None:
        super().__init__(root)
        self._folder = folder

    def path_of_build(self, name: str) -> Path:
        """In the study's folder."""
        return self._folder / "builds" / name


@dataclass(frozen=True)
class _Parts:
    """The steps of a trial: up to the teacher's score, and all of them."""

    teacher: Sequence[Step]
    whole: Sequence[Step]


def run_trial(make: Callable[[], Build], store: TrialStore, watch: Watcher) -> Outcome:
    """What the build that ``make`` gives came to; what it shares with other builds is in the same store.

    Raises:
        EnvironmentMissing, StoreError: what would end every trial.
    """
    clock = time.monotonic()
    try:
        build = make()
        check_build(build)
        outcome = _outcome(build, store, watch)
    except (DataError, StoreError):
        raise
    except (ConfigError, StageFailed) as e:
        outcome = Outcome(state="failed", reason=said(e))
    return structs.replace(outcome, seconds=round(time.monotonic() - clock, 3))


def _outcome(build: Build, store: Store, watch: Watcher) -> Outcome:
    parts = _parts(build)
    metric = f"validation_{_comparison(build.config).name}"
    known = run_build(replace(build, steps=parts.teacher), store, watch)
    teacher = next(entry.metrics for entry in known.manifest.steps if entry.step == TEACHER_SCORE)[metric]
    if found := hopeless(build.config, build.target):
        return _stopped(found, known)
    told = {step.name for step in parts.teacher}
    steps = [step if step.name in told else _watched(step, build.config, metric, teacher) for step in parts.whole]
    result = run_build(replace(build, steps=steps), store, watch)
    if result.stopped:
        return _stopped(_early(result, build.config, metric, teacher), known, result)
    figures = _figures(result.outputs["weigh"], build.config)
    return Outcome(
        state="complete",
        figures=figures,
        misses=misses(figures, build.config),
        ran=_ran(known) + _ran(result),
        cached=_cached(known, result),
    )


def _stopped(found: tuple[Miss, ...], known: BuildResult, result: BuildResult | None = None) -> Outcome:
    ran = _ran(known) + (_ran(result) if result else 0)
    return Outcome(state="stopped", reason=found[0].text, misses=found, ran=ran, cached=_cached(known, result or known))


def _ran(result: BuildResult) -> int:
    return sum(entry.status == "ran" for entry in result.manifest.steps)


def _cached(known: BuildResult, whole: BuildResult) -> int:
    """Of ``whole``, which begins with the steps of ``known``, what neither ran."""
    return len(whole.manifest.steps) - _ran(whole) - (_ran(known) if whole is not known else 0)


def _parts(build: Build) -> _Parts:
    """What a build does before it looks at the test split, and instead of that the validation split."""
    verify = next(step for step in build.steps if step.name == "verify")
    teacher, shipped, data = (verify.inputs[name] for name in (REFERENCE, "shipped", "data"))
    assert isinstance(teacher, Output)
    assert isinstance(shipped, Output)
    assert isinstance(data, Output)
    seed, config = build.config.seed, build.config
    metric = asked_metric(task_for(config.data), config.gate)
    scores = [
        scoring(name, {"model": model, "data": data, **metric_file(config.gate)}, build.target, seed, metric)
        for name, model in ((TEACHER_SCORE, teacher), (SHIPPED_SCORE, shipped))
    ]
    inputs: dict[str, Source] = {
        REFERENCE: teacher,
        SHIPPED: shipped,
        "teacher-score": Output(TEACHER_SCORE, STATISTIC),
        "shipped-score": Output(SHIPPED_SCORE, STATISTIC),
        "data": data,
        **metric_file(config.gate),
    }
    weighed = WeighParams(**structs.asdict(config.verify), metric=metric, energy=config.search.choose == "energy")
    weigh = Step("weigh", WEIGH, weighed, inputs, seed)
    known = [*_before(build.steps, {teacher.step, data.step}), scores[0]]
    rest = [step for step in _before(build.steps, {shipped.step}) if step.name not in {one.name for one in known}]
    return _Parts(known, [*known, *rest, scores[1], weigh])


def _before(steps: Sequence[Step], wanted: set[str]) -> list[Step]:
    """The steps called so and all that they rest on, in order."""
    needed = set(wanted)
    for step in reversed(steps):
        if step.name in needed:
            needed |= {source.step for source in step.inputs.values() if isinstance(source, Output)}
    return [step for step in steps if step.name in needed]


def _watched(step: Step, config: Config, metric: str, teacher: float) -> Step:
    """``step``, stopped where it trained a network that is too far below the teacher to come back."""
    return replace(step, gates=partial(_judge, step, config, metric, teacher))


def _judge(
    step: Step, config: Config, metric: str, teacher: float, outputs: Mapping[str, Path], metrics: Metrics
) -> Sequence[GateResult]:
    own = step.gates(outputs, metrics) if step.gates else ()
    found = _of_network(metrics, config, metric, teacher)
    return [
        *own,
        *(
            GateResult(
                gate="search",
                metric=metric,
                value=metrics[metric],
                bound=None,
                limit=teacher - config.gate.max_drop,
                verdict="fail",
                text=miss.text,
            )
            for miss in found
        ),
    ]


def _of_network(metrics: Metrics, config: Config, metric: str, teacher: float) -> list[Miss]:
    """What a network that was just trained misses by more than ``search.slack``."""
    if metric not in metrics or "epochs" not in metrics:
        return []
    title = _comparison(config).title
    return score_misses(metrics[metric], teacher, title, config, config.search.slack)


def _early(result: BuildResult, config: Config, metric: str, teacher: float) -> tuple[Miss, ...]:
    last = result.manifest.steps[-1]
    return tuple(_of_network(last.metrics, config, metric, teacher))


def _comparison(config: Config) -> Comparison:
    return comparison_by(task_for(config.data), config.gate.metric)


def _figures(outputs: Mapping[str, Path], config: Config) -> Figures:
    accuracy, latencies = read_accuracy(outputs), read_latencies(outputs)
    row, (timing,) = accuracy.row(SHIPPED), latencies.rows
    drop = _comparison(config).drop(row, accuracy, config.gate.confidence)
    return Figures(
        metric=accuracy.metric,
        title=accuracy.title,
        samples=accuracy.n,
        score=row.score,
        teacher_score=accuracy.row(REFERENCE).score,
        drop=drop.value,
        drop_upper=drop.upper,
        latency_ms=timing.p50_ms,
        latency_p90_ms=timing.p90_ms if latencies.kind == MEASURED else None,
        latency_p99_ms=timing.at(99).ms if latencies.kind == MEASURED else None,
        latency_kind=latencies.kind,
        latency_where=latencies.where,
        energy_mj=msgspec.json.decode(outputs["energy.json"].read_bytes(), type=Weighed).per_inference_mj,
        size_bytes=row.size_bytes,
        parameters=row.parameters,
        macs=row.macs,
    )
