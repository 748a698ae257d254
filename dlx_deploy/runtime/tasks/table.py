"""Every task by its name in ``package.json``: where the function is that reads a package's own fields of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Dict

from .task import Task

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["TASKS", "open_task"]

TASKS: Dict[str, str] = {
    "image-classification": ".image_classification:open_task",
    "sequence-classification": ".text_classification:open_task",
}
"""Task → ``module:function``; a leading dot: in this folder. Imported when a package has the task."""


def open_task(field: Fields) -> Task:
    """The task that a package has.

    Raises:
        PackageError: no such task, or one of its fields or files is missing or of the wrong kind.
    """
    name = field.get("task", str)
    if name not in TASKS:
        raise field.wrong("task", name, f"must be one of {', '.join(TASKS)}")
    module, _, function = TASKS[name].partition(":")
    task: Task = getattr(import_module(module, __package__), function)(field)
    return task
