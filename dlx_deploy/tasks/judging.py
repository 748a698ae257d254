"""By what a task is judged: its own metric, or the one that ``gate.metric`` asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.tasks.task import Task
from dlx_deploy.tasks.verification import Comparison

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["asked_metric", "comparison_by", "judged_device", "validation_notes"]


def asked_metric(task: Task, budgets: Gate) -> str:
    """The metric as it enters keys: "" is the task's own, by whatever name."""
    return "" if budgets.metric == task.answers.comparison.name else budgets.metric


def comparison_by(task: Task, metric: str) -> Comparison:
    """How models of ``task`` are compared by ``metric``; "": by its own.

    Raises:
        ConfigError: it has no such metric.
    """
    own = task.answers.comparison
    others: Mapping[str, Comparison] = getattr(task.answers, "metrics", {})
    if metric in ("", own.name):
        return own
    if metric not in others:
        known = ", ".join(map(repr, (own.name, *others)))
        raise ConfigError(f"gate.metric is {metric!r}; {task.name} has: {known}")
    return others[metric]


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

    return judged(task.device(data, golden, dims), Judging(metric))
