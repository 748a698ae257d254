"""INT8 held against its budget on the validation split, and layers restored to floating point until it holds.

The test split is the gate's alone. Where INT8 keeps to the budget at once, two models are run, of at most
``MOST_SAMPLES`` inputs each, and no byte changes.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dlx_deploy.config import Quantize
from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.quantization.trials import (
    GRAPHS,
    LayerSensitivity,
    Sensitivity,
    Trial,
    Trials,
    TriedGraph,
    TriedGraphs,
    written,
)
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.statistics.search import fewest
from dlx_deploy.stages.support.validating import Validation

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.kit.decisions import Decisions
    from dlx_deploy.graph.quantization.kit.judge import Judge
    from dlx_deploy.graph.quantization.mixed import Planned
    from dlx_deploy.graph.quantization.quantize import QuantizationReport

__all__ = ["MOST_SAMPLES", "Looked", "keep_graphs", "keep_within_budget"]

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
    graphs: TriedGraphs = field(default_factory=TriedGraphs)
    folder: Path = Path()  # where the files of these lie


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
    first = bench.trial("int8", job.out / MODEL, (), report.layers)
    if first.verdict == "met":
        return Looked(report, bench.trace((first,), ""))
    judge = bench.judge(SENSITIVITY_SAMPLES)
    if not judge.compares:
        return Looked(report, bench.trace((first,), _INTEGERS))
    search = _Search(job, planned, report, bench, judge, first)
    return search.diagnosed() if asked else search.restored()


def keep_graphs(folder: Path, looked: Looked) -> None:
    """Write ``folder``: what was tried, and of it the graphs that keep to the budget."""
    folder.mkdir()
    (folder / GRAPHS).write_bytes(written(looked.graphs))
    for graph in looked.graphs.graphs:
        if graph.file:
            shutil.copyfile(looked.folder / graph.file, folder / graph.file)


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
        first = msgspec.structs.replace(first, sqnr_db=_sqnr(judge, job.out / MODEL))
        self._tried = [self._graph(first, report.layers)]
        self._layers = self._sensitivities()
        self._written: tuple[tuple[str, ...], QuantizationReport] = ((), report)

    def diagnosed(self) -> Looked:
        """The graph as it is, and what each layer costs."""
        return Looked(self._report, self._bench.trace(self._trials, _ASKED), self._sensitivity(()))

    def restored(self) -> Looked:
        """The graph with the fewest restored layers that keeps to the budget; others that do may be faster."""
        count = fewest(self._holds, above=0)
        names = self._names(count)
        if count >= len(self._layers):
            note = "no layer is left in INT8: with the last of them the budget was missed"
            _log.warning("quantize: %s", note)
            return Looked(None, self._bench.trace(self._trials, note, names), self._sensitivity(names))
        self._without_islands(names)
        if self._written[0] != names:
            self._write(names)
        note = f"{len(names)} of {len(self._report.plan.layers_at('int8'))} INT8 layers are restored"
        report = replace(self._written[1], ranges=self._report.ranges, decisions=self._decisions())
        given = [graph.trial.restored for graph in self._tried].index(names)
        kept = [msgspec.structs.replace(g, file="") if i == given else g for i, g in enumerate(self._tried)]
        graphs = TriedGraphs(graphs=tuple(kept), given=given)
        trace, costs = self._bench.trace(self._trials, note, names), self._sensitivity(names)
        return Looked(report, trace, costs, graphs, self._job.checkpoints)

    def _without_islands(self, names: tuple[str, ...]) -> None:
        """One more trial where INT8 layers are left alone between restored ones."""
        from dlx_deploy.graph.quantization.mixed import islands

        alone = islands(self._planned, names)
        left = set(self._report.plan.layers_at("int8")).difference(names, alone)
        tried = {frozenset(trial.restored) for trial in self._trials}
        if alone and left and frozenset((*names, *alone)) not in tried:
            self._try((*names, *alone), "without-islands")

    @property
    def _trials(self) -> list[Trial]:
        return [graph.trial for graph in self._tried]

    def _decisions(self) -> Decisions:
        """What was decided before layers were restored, and what was decided anew."""
        before, anew = self._report.decisions, self._written[1].decisions.steps
        if self._written[1] is self._report:
            return before
        kept = [step for step in before.steps if step.step not in {other.step for other in anew}]
        return msgspec.structs.replace(before, steps=(*kept, *anew))

    def _holds(self, count: int) -> bool:
        """Whether the budget holds with ``count`` groups restored; with all of them nothing is asked: FP32 does."""
        return count >= len(self._layers) or self._try(self._names(count), f"restored-{count}")

    def _try(self, names: tuple[str, ...], called: str) -> bool:
        """Whether the budget holds with ``names`` restored."""
        self._job.progress(len(self._tried), 0, f"trial {len(self._tried)}: {', '.join(names)} restored")
        found = self._job.checkpoints / f"{called}.json"
        graph = _remembered(found, TriedGraph, lambda: self._made(names, called))
        self._tried.append(graph)
        return graph.trial.verdict == "met"

    def _made(self, names: tuple[str, ...], called: str) -> TriedGraph:
        self._write(names)
        path, layers = self._job.out / MODEL, self._written[1].layers
        trial = self._bench.trial(called, path, names, layers)
        trial = msgspec.structs.replace(trial, sqnr_db=_sqnr(self._judge, path))
        if trial.verdict == "missed":
            return self._graph(trial, layers)
        write_atomically(self._job.checkpoints / f"{called}.onnx", path.read_bytes())
        return self._graph(trial, layers, f"{called}.onnx")

    def _graph(self, trial: Trial, layers: Mapping[str, str], file: str = "") -> TriedGraph:
        """What the graph that was written last costs."""
        from dlx_deploy.graph.analysis.cost import layer_costs
        from dlx_deploy.graph.analysis.islands import island_costs

        path = self._job.out / MODEL
        costs = layer_costs(path)
        if self._job.target.quantization.style == "cpu":
            costs += island_costs(path)
        return TriedGraph(trial=trial, layers=layers, costs=tuple(costs), file=file)

    def _write(self, names: tuple[str, ...]) -> None:
        from dlx_deploy.graph.quantization.mixed import without
        from dlx_deploy.graph.quantization.quantize import quantize_model

        planned, out = self._planned, self._job.out / MODEL
        with _explained(f"with {', '.join(names)} in floating point"):
            report = quantize_model(planned.source, out, planned.calibration, without(planned, names))
        self._written = (names, report)

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

    def _sensitivity(self, restored: tuple[str, ...]) -> Sensitivity:
        layers = tuple(self._layers)
        return Sensitivity(samples=len(self._judge.held), layers=layers).with_restored(restored)


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
