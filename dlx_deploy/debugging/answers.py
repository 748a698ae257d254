"""What graphs answer to the samples, and how good that is by the task's own comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.execution.evaluation import BATCH, run_in_batches
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.tasks.arrays import block_rows, count_of, joined, rows_of
from dlx_deploy.runtime.tasks.judging import judging_of
from dlx_deploy.runtime.tasks.metric_names import is_user_metric_name
from dlx_deploy.runtime.words import line
from dlx_deploy.tasks import find_task
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.told import Told, all_told
from dlx_deploy.tasks.user_file import check_file, is_user_metric, split_metric, without_folder
from dlx_deploy.tasks.verification import Comparison

__all__ = ["Answered", "Bench", "Labelled", "read_labelled"]


@dataclass(frozen=True)
class Labelled:
    """Samples as the package reads them, their targets by name, and what each is called, if they have names."""

    samples: Samples
    targets: Arrays
    names: tuple[str, ...]
    given: int
    """How many there were before ``most`` were taken."""
    texts: tuple[str, ...] = ()
    """What the samples are, where they are texts."""


@dataclass(frozen=True)
class Answered:
    """How good a graph is, 0..1, and what it answers; ``None`` where the task does not say it in words."""

    score: float
    told: Told | None


def _place(asked: str, metric: str) -> str:
    """The metric that the package was judged by, where a user says that its file is.

    Raises:
        ConfigError: that is another one, or the file has no such function.
    """
    if metric and without_folder(metric) != asked:
        by = repr(asked) if asked else "its task's own metric"
        raise ConfigError(f"--metric is {metric!r}, and the package was judged by {by}; leave it out, or name that one")
    if metric and is_user_metric(metric):
        check_file(*split_metric(metric))
    return metric or asked


def read_labelled(package: Package, data: str, most: int) -> Labelled:
    """The labelled samples at ``data``, read as the package reads them, ``most`` of them (0: all), evenly over all.

    Raises:
        InputError: they cannot be read. BackendMissing: a library that reads them is not here.
        ConfigError: there are none.
    """
    task = package.task
    given, targets = task.load_labelled(data)
    feeds = task.inputs.read(given)
    count = count_of(feeds)
    task.outputs.check_targets(targets, count, task.inputs.noun)
    names = tuple(task.names(data)) if task.names else ()
    rows = np.arange(count) if not most or count <= most else np.arange(most) * count // most
    if not len(rows):
        raise ConfigError(f"{data}: no {task.inputs.noun}; rule: at least one")
    named = tuple(names[row] for row in rows) if len(names) == count else ()
    texts = tuple(map(str, given)) if isinstance(given, list) and all(isinstance(x, str) for x in given) else ()
    texts = tuple(texts[row] for row in rows) if len(texts) == count else ()
    return Labelled(Samples(rows_of(feeds, rows)), rows_of(targets, rows), named, count, texts)


class Bench:
    """Runs graphs on ``labelled`` as the package was judged: ``exact``, or with the kernels of this host, and by the
    metric of its gate. ``metric``: where a user's own metric is, FILE.py:FUNCTION; "": not known.

    Raises:
        ConfigError: it is not the one that the package was judged by.
    """

    def __init__(self, package: Package, labelled: Labelled, metric: str = "", progress: Progress = silent) -> None:
        self.package, self.labelled, self.exact = package, labelled, package.exact_qdq
        asked = judging_of(package.task).metric
        own = is_user_metric_name(asked) and not metric
        self.comparison: Comparison = comparison_by(find_task(package.task.name), "" if own else _place(asked, metric))
        self._progress = progress
        self.faults: list[str] = []
        """Which graphs gave no numbers: a package with such a fault is what one wants to look into."""
        self.note = (
            f"its gate judged by {line(asked)}, which packages do not carry: everything here is by "
            f"{self.comparison.title} instead; give the function: --metric FILE.py:FUNCTION"
            if own
            else ""
        )

    def outputs(self, model: ModelProto, what: str, exact: bool | None = None) -> Iterator[tuple[slice, Arrays]]:
        """The outputs of ``model`` batch by batch, and the rows that they are for."""
        samples, start = self.labelled.samples, 0
        size = block_rows((*self.package.task.inputs.tensors, *self.package.task.outputs.tensors), BATCH)
        how = self.exact if exact is None else exact
        for outputs in run_in_batches(to_bytes(model), samples, how, size):
            self._progress(start, len(samples), f"{what} on {len(samples)} {self.package.task.inputs.noun}")
            rows = slice(start, start + count_of(outputs))
            yield rows, outputs
            start = rows.stop

    def answered(self, model: ModelProto, what: str) -> Answered:
        """How good ``model`` is, and what it answers; 0 and nothing where that is no number."""
        tell = getattr(find_task(self.package.task.name).answers, "told", None)  # tasks of other packages may have none
        device, parts, told = self.package.task.outputs, list[Arrays](), list[Told]()
        try:
            for rows, outputs in self.outputs(model, what):
                targets = rows_of(self.labelled.targets, rows)
                parts.append(dict(device.statistic(outputs, targets)))
                if tell is not None:
                    told.append(tell(outputs, targets, device))
        except PackageError as e:
            self.faults.append(f"{what} gives no numbers, and counts as wrong everywhere ({e})")
            return Answered(0.0, None)
        return Answered(self.comparison.score(joined(parts)), all_told(told) if told else None)

    def score(self, model: ModelProto, what: str, exact: bool | None = None) -> float:
        """How good ``model`` is: 0..1, 0 where its answers are no numbers; ``exact``: other than for the package."""
        statistic, parts = self.package.task.outputs.statistic, list[Arrays]()
        try:
            for rows, outputs in self.outputs(model, what, exact):
                parts.append(dict(statistic(outputs, rows_of(self.labelled.targets, rows))))
        except PackageError:
            return 0.0
        return self.comparison.score(joined(parts))
