"""INT8 held against its budget on the validation split, and layers restored to floating point until it holds.

The test split is the gate's alone. Where INT8 keeps to the budget at once, two models are run, of at most
``MOST_SAMPLES`` inputs each, and no byte changes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dlx_deploy.config import Quantize
from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.quantization.trials import LayerSensitivity, Sensitivity, Trial, Trials
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.statistics.search import fewest
from dlx_deploy.stages.support.validating import Validation

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.kit.judge import Judge
    from dlx_deploy.graph.quantization.mixed import Planned
    from dlx_deploy.graph.quantization.quantize import QuantizationReport

__all__ = ["MOST_SAMPLES", "Looked", "keep_within_budget"]

MOST_SAMPLES = 2000
"""Validation inputs: a standard error of at most 1.1 points, of paired differences far less."""
SENSITIVITY_SAMPLES = 64
"""Noise is measured on every output of each; ranks of layers need no more."""

K = TypeVar("K", bound=msgspec.Struct)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looked:
    """What ships, ``None`` where no layer is left in INT8, and how it came about."""

    report: QuantizationReport | None
    trials: Trials
    sensitivity: Sensitivity = field(default_factory=Sensitivity)


def keep_within_budget(
    job: Job[Quantize], planned: Planned, report: QuantizationReport, confidence: float, asked: bool
) -> Looked:
    """The INT8 graph that ``job`` wrote and ``report`` describes, or what takes its place there.

    ``asked``: INT8 was asked for by name, so it is measured, and stays.

    Raises:
        StageFailed: the task can make nothing of an answer.
    """
    assert isinstance(job.params.max_drop, float)
    bench = Validation(job, job.params.max_drop, confidence, MOST_SAMPLES)
    first = bench.trial("int8", job.out / "model.onnx", (), report.layers)
    if first.verdict == "met":
        return Looked(report, bench.trace((first,), ""))
    judge = bench.judge(SENSITIVITY_SAMPLES)
    if not judge.compares:
        return Looked(report, bench.trace((first,), _INTEGERS))
    search = _Search(job, planned, report, bench, judge, first)
    return search.diagnosed() if asked else search.restored()


_INTEGERS = "the network answers in integers, which are not near or far: no layer can be told from another"
_ASKED = "INT8 was asked for by name or trained, and stays"


class _Search:
    """The fewest of the costliest layers whose restoration keeps to the budget; what is found is kept for a resume."""

    def __init__(
        self,
        job: Job[Quantize],
        planned: Planned,
        report: QuantizationReport,
        bench: Validation,
        judge: Judge,
        first: Trial,
    ) -> None:
        self._job, self._planned, self._report, self._bench, self._judge = job, planned, report, bench, judge
        self._trials = [msgspec.structs.replace(first, sqnr_db=_sqnr(judge, job.out / "model.onnx"))]
        self._layers = self._sensitivities()
        self._written = (0, report)

    def diagnosed(self) -> Looked:
        """The graph as it is, and what each layer costs."""
        return Looked(self._report, self._bench.trace(self._trials, _ASKED), self._sensitivity(0))

    def restored(self) -> Looked:
        """The graph that keeps to the budget."""
        count = fewest(self._holds, above=0)
        names = self._names(count)
        sensitivity = self._sensitivity(count)
        if count >= len(self._layers):
            note = "no layer is left in INT8: with the last of them the budget was missed"
            _log.warning("quantize: %s", note)
            return Looked(None, self._bench.trace(self._trials, note, names), sensitivity)
        if self._written[0] != count:
            self._write(count)
        note = f"{len(names)} of {len(self._report.plan.layers_at('int8'))} INT8 layers are restored"
        report = replace(self._written[1], ranges=self._report.ranges)
        return Looked(report, self._bench.trace(self._trials, note, names), sensitivity)

    def _holds(self, count: int) -> bool:
        """Whether the budget holds with ``count`` groups restored; with all of them nothing is asked: FP32 does."""
        if count >= len(self._layers):
            return True
        self._job.progress(len(self._trials), 0, f"trial {len(self._trials)}: {', '.join(self._names(count))} restored")
        trial = _remembered(self._job.checkpoints / f"restored-{count}.json", Trial, lambda: self._tried(count))
        self._trials.append(trial)
        return trial.verdict == "met"

    def _tried(self, count: int) -> Trial:
        self._write(count)
        path, layers = self._job.out / "model.onnx", self._written[1].layers
        trial = self._bench.trial(f"restored-{count}", path, self._names(count), layers)
        return msgspec.structs.replace(trial, sqnr_db=_sqnr(self._judge, path))

    def _write(self, count: int) -> None:
        from dlx_deploy.graph.quantization.mixed import without
        from dlx_deploy.graph.quantization.quantize import quantize_model

        planned, out = self._planned, self._job.out / "model.onnx"
        with _explained(f"with {', '.join(self._names(count))} in floating point"):
            report = quantize_model(planned.source, out, planned.calibration, without(planned, self._names(count)))
        self._written = (count, report)

    def _names(self, count: int) -> tuple[str, ...]:
        return tuple(name for layer in self._layers[:count] for name in layer.layers)

    def _sensitivities(self) -> list[LayerSensitivity]:
        """The costliest first, of equals the first of the graph."""
        from dlx_deploy.graph.quantization.mixed import layer_groups
        from dlx_deploy.graph.quantization.sensitivity import layer_sensitivity

        found, folder = list[LayerSensitivity](), self._job.checkpoints
        groups = layer_groups(self._planned)
        for number, group in enumerate(groups):
            self._job.progress(number, len(groups), f"what {group[0]} costs in INT8")

            def measured(group: tuple[str, ...] = group) -> LayerSensitivity:
                with _explained(f"with {', '.join(group)} alone in INT8"):
                    return layer_sensitivity(self._planned, group, self._judge, folder / "alone.onnx")

            found.append(_remembered(folder / f"alone-{number}.json", LayerSensitivity, measured))
        return sorted(found, key=lambda layer: layer.sqnr_db)

    def _sensitivity(self, restored: int) -> Sensitivity:
        layers = [msgspec.structs.replace(x, restored=i < restored) for i, x in enumerate(self._layers)]
        return Sensitivity(samples=len(self._judge.held), layers=tuple(layers))


@contextlib.contextmanager
def _explained(graph: str) -> Iterator[None]:
    """Says of a failure which graph was tried, and why: without a budget the build would have gone on."""
    try:
        yield
    except StageFailed as e:
        raise StageFailed(
            f"{e}; the graph {graph} was tried as INT8 misses quantize.max_drop: set that to 'off', or name the "
            "layers that are to stay in floating point in quantize.exclude"
        ) from e


def _sqnr(judge: Judge, path: Path) -> float:
    from dlx_deploy.graph.model import load

    return round(judge.score(load(path)).sqnr_db, 3)


def _remembered(path: Path, kind: type[K], make: Callable[[], K]) -> K:
    """What a killed run of this very step found, or what ``make`` finds now."""
    if path.is_file():
        return msgspec.json.decode(path.read_bytes(), type=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = make()
    write_atomically(path, msgspec.json.encode(made))
    return made
