"""What differs from task to task, where packages are built: a file for each. Nothing heavy is imported here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Data, Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.plugins import Plugin, load_plugin, provider
from dlx_deploy.progress import Progress, silent
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.kind import DataKind
from dlx_deploy.tasks.slices import refuse_unknown, slice_notes
from dlx_deploy.tasks.task import Task

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.survey.findings import Surveyed

__all__ = [
    "TASKS",
    "DataKind",
    "Task",
    "check_keys",
    "check_offered",
    "find_task",
    "is_built_in",
    "kinds_with_a_path",
    "prepare",
    "survey",
    "task_for",
    "task_of",
    "tools_of",
]

TASKS = {
    "image-classification": "dlx_deploy.tasks.image_classification:TASK",
    "sequence-classification": "dlx_deploy.tasks.text_classification:TASK",
    "semantic-segmentation": "dlx_deploy.tasks.semantic_segmentation:TASK",
}
"""Task → ``module:NAME``. Those of other packages are entry points: in the group ``dlx_deploy.datasets`` by each
``data.kind`` that they take, and in those of ``_PARTS`` by their names. ``dlx_deploy.datasets`` also has a ``DataKind``
of a task that there is."""
_PARTS = {"task": "its Task", "header": "its data's Header", "device_task": "its function open_task"}
"""What else a task of another package offers, each in a group of its own, ``dlx_deploy.NOUNs``."""


def find_task(name: str) -> Task:
    """The task ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        plugin = load_plugin("task", name, list(TASKS), "install the package that brings it")
        return _given(plugin, "a dlx_deploy.tasks.Task")
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)
    return task


def task_for(data: Data) -> Task:
    """The task that takes ``data.kind``: the built-in ones first.

    Raises:
        ConfigError: none does, or one that is offered for it does not say so, or is for a task that is not there.
    """
    built_in = [find_task(name) for name in TASKS]
    for task in built_in:
        if data.kind in task.kinds:
            return task
    kinds = [kind for task in built_in for kind in task.kinds]
    plugin = load_plugin("dataset", data.kind, kinds, "set data.kind to one of them")
    if isinstance(plugin.value, DataKind):
        return plugin.value.of(find_task(plugin.value.task), data.kind, plugin.distribution)
    task = _given(plugin, "a dlx_deploy.tasks.Task or DataKind")
    if data.kind not in task.kinds:
        raise ConfigError(
            f"entry point {plugin.point!r} is offered for data.kind {data.kind!r}, and its task {task.name!r} takes "
            f"{', '.join(map(repr, task.kinds))}; name it in Task.kinds too"
        )
    return task


def is_built_in(kind: str) -> bool:
    """Whether ``data.kind`` can be ``kind``, and such data come without a path."""
    try:
        return bool(task_for(Data(kind=kind)).kinds[kind])
    except ConfigError:
        return False


def check_keys(data: Data, task: Task) -> None:
    """Refuses keys of ``[data]`` that only other tasks have.

    Raises:
        ConfigError: names the key.
    """
    others = frozenset().union(*(find_task(name).keys for name in TASKS)) - task.keys
    for key in (name for name in data.__struct_fields__ if name in others):
        value = getattr(data, key)
        if value != getattr(Data(), key):
            shown = list(value) if isinstance(value, tuple) else repr(value)
            raise ConfigError(
                f"data.{key} is {shown}, and data.kind {data.kind!r} has {task.inputs.noun}, which have no such key; "
                "leave it out"
            )


def check_offered(data: Data, task: Task) -> None:
    """Refuses a task of another package that is not whole: some parts are asked for after hours only.

    Raises:
        ConfigError: names the entry point that is missing.
    """
    missing = [] if task.name in TASKS else [noun for noun in _PARTS if not provider(noun, task.name)]
    if missing:
        raise ConfigError(
            f"data.kind {data.kind!r} is of task {task.name!r}, and {_provider(data, task)} offers no such "
            f"name in the entry points dlx_deploy.{missing[0]}s; add {task.name} there: {_PARTS[missing[0]]}"
        )


def tools_of(data: Data) -> tuple[str, ...]:
    """The distribution that brings the task of ``data``, if it is not ours: every result rests on it."""
    task = task_for(data)
    brought = "" if task.name in TASKS else _provider(data, task)
    return (brought,) if brought else ()


def _provider(data: Data, task: Task) -> str:
    return provider("task", task.name) or provider("dataset", data.kind)


def _given(plugin: Plugin, rule: str) -> Task:
    if not isinstance(plugin.value, Task):
        kind = type(plugin.value).__name__
        raise ConfigError(f"entry point {plugin.point!r} gives a {kind}; rule: {rule}")
    return plugin.value


def task_of(data: Dataset) -> Task:
    """The task that a prepared data set is for."""
    return find_task(data.task)


def kinds_with_a_path() -> list[str]:
    """The values of ``data.kind`` for data of the user's own."""
    return [kind for name in TASKS for kind, own in find_task(name).kinds.items() if not own]


def prepare(config: Data, out: Path, seed: int, progress: Progress = silent) -> dict[str, float]:
    """Write the data set that ``config`` describes into the folder ``out``; gives back its counts.

    Raises:
        DataError: the samples, their files or the splits cannot be used.
        EnvironmentMissing: a library that reads them is not installed.
    """
    from dlx_deploy.nn.data.prepare import prepare as prepare_from

    return prepare_from(task_for(config).source(config, progress), config, out, seed)


def survey(config: Data, seed: int, progress: Progress = silent, budgets: Gate | None = None) -> Surveyed:
    """What there is to know of the data that ``config`` describes, and which splits a build with ``seed`` would draw.

    ``budgets``: those that the test split must be large enough for.

    Raises:
        ConfigError: they cannot even be listed. EnvironmentMissing: a library is not installed.
    """
    from dlx_deploy.nn.data.survey.findings import Finding

    task = task_for(config)
    if task.survey and config.path:
        surveyed = task.survey(config, seed, progress)
    else:
        from dlx_deploy.nn.data.survey.generic import survey_source

        surveyed = survey_source(task.source(config, progress), config, seed)
    seen = surveyed.survey
    tested = next((split.count for split in seen.splits if split.name == "test"), 0)
    if budgets is None or not tested:
        return surveyed
    comparison = comparison_by(task, budgets.metric)
    notes = comparison.split_notes(budgets, tested, {"classes": float(len(seen.classes))})
    small = slice_notes(comparison, budgets, seen.slices)
    findings = [Finding("gate", "warning", note) for note in [*notes, *small]]
    try:
        if seen.slices:
            refuse_unknown(budgets, list(seen.slices))
    except ConfigError as e:
        findings.append(Finding("gate", "refused", str(e)))
    return surveyed.adding(findings)
