"""By what a task is judged: its own metric, or the one that ``gate.metric`` asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.user_code import modules_beside
from dlx_deploy.pipeline.stage import Metrics, Tree
from dlx_deploy.progress import Progress
from dlx_deploy.tasks.grouped import grouped_targets
from dlx_deploy.tasks.task import Task
from dlx_deploy.tasks.user_file import is_user_metric, split_metric, without_folder
from dlx_deploy.tasks.verification import Comparison

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["METRIC", "asked_metric", "comparison_by", "judged_device", "metric_file", "validation_notes", "watched"]

METRIC = "metric"
"""The input of a step that is the file of a user's own metric."""


@runtime_checkable
class ByFunction(Protocol):
    """What a task's answers have more where a function of the user's can judge them."""

    def by_function(self, function: str, file: Path, name: str) -> Comparison:
        """By the ``function`` in ``file``, which is called ``name`` whatever the file lies as."""
        ...


@runtime_checkable
class Slow(Protocol):
    """What a comparison has more where its bounds may take minutes."""

    def watched(self, progress: Progress) -> Comparison:
        """The same, which tells ``progress`` how far it is."""
        ...


def asked_metric(task: Task, budgets: Gate) -> str:
    """The metric as it enters keys: "" is the task's own, by whatever name; a user's is without its folder."""
    return "" if budgets.metric == task.answers.comparison.name else without_folder(budgets.metric)


def metric_file(budgets: Gate) -> dict[str, Path | Tree]:
    """The file of a user's own metric, as an input of a step: what it says is in the key. Where it imports modules from
    its folder, they are too: the folder, of which these files count."""
    if not is_user_metric(budgets.metric):
        return {}
    file, _ = split_metric(budgets.metric)
    return {METRIC: Tree(file.parent, partial(_read_files, file.name)) if modules_beside(file) else file}


def _read_files(name: str, folder: Path) -> list[str]:
    return sorted([name, *modules_beside(folder / name)])


def comparison_by(task: Task, metric: str, file: Path | None = None) -> Comparison:
    """How models of ``task`` are compared by ``metric``; "": by its own.

    ``file``: of a user's, or its folder, if not as named.

    Raises:
        ConfigError: it has no such metric.
    """
    if is_user_metric(metric) and isinstance(task.answers, ByFunction):
        named, function = split_metric(metric)
        given = file / named.name if file and file.is_dir() else file
        return task.answers.by_function(function, given or named, named.name)
    own = task.answers.comparison
    others: Mapping[str, Comparison] = getattr(task.answers, "metrics", {})
    if metric in ("", own.name):
        return own
    if metric not in others:
        known = ", ".join(map(repr, (own.name, *others)))
        own_too = ", or a function of yours, 'FILE.py:FUNCTION'" if isinstance(task.answers, ByFunction) else ""
        raise ConfigError(f"gate.metric is {metric!r}; {task.name} has: {known}{own_too}")
    return others[metric]


def watched(comparison: Comparison, progress: Progress) -> Comparison:
    """``comparison``, which tells ``progress`` how far it is where its bounds may take minutes."""
    return comparison.watched(progress) if isinstance(comparison, Slow) else comparison


def validation_notes(task: Task, budgets: Gate, metrics: Metrics) -> list[str]:
    """What the validation split already says of the gates; where these ask for another metric than networks are
    trained and validated by, that it says nothing."""
    own, asked = task.answers.comparison, comparison_by(task, budgets.metric)
    if not asked_metric(task, budgets):
        return own.teacher_notes(budgets, metrics)
    return [
        f"networks are validated by {own.title}, their best epochs are chosen by it, and the gate judges by "
        f"{asked.title}: of that validation says nothing here"
    ]


def judged_device(
    task: Task, data: Dataset, golden: Sequence[int], dims: Mapping[str, Sequence[int | None]], metric: str
) -> DeviceTask:
    """The package's half of ``task``, as ``Task.device`` gives it, judged by ``metric``."""
    from dlx_deploy.runtime.tasks.judging import Judging, judged

    grouped = bool(grouped_targets(task, data, "test"))
    return judged(task.device(data, golden, dims), Judging(metric, grouped))
