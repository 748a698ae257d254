"""Every task by its name in ``package.json``: where the function is that reads a package's own fields of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Callable, Dict, Optional

from ..errors import BackendMissing
from .task import Task

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["GROUP", "TASKS", "open_task"]

TASKS: Dict[str, str] = {
    "image-classification": ".image_classification:open_task",
    "semantic-segmentation": ".semantic_segmentation:open_task",
    "sequence-classification": ".text_classification:open_task",
}
"""Task → ``module:function``; a leading dot: in this folder. Imported when a package has the task."""
GROUP = "dlx_deploy.device_tasks"
"""The entry points of other packages, asked for unknown names only. A package carries this folder and not theirs: what
runs such a task has their package installed; dlx-deploy need not be."""


def open_task(field: Fields) -> Task:
    """The task that a package has.

    Raises:
        PackageError: no such task, or one of its fields or files is missing or of the wrong kind.
        BackendMissing: the task is another package's, and that cannot be imported.
    """
    name = field.get("task", str)
    opener = _built_in(TASKS[name]) if name in TASKS else _installed(name)
    if opener is None:
        rule = f"must be one of {', '.join(TASKS)}, or of a package that is installed here and offers it ({GROUP})"
        raise field.wrong("task", name, rule)
    return opener(field)


def _built_in(place: str) -> Callable[[Fields], Task]:
    module, _, function = place.partition(":")
    opener: Callable[[Fields], Task] = getattr(import_module(module, __package__), function)
    return opener


def _installed(name: str) -> Optional[Callable[[Fields], Task]]:
    """What another package offers under this name."""
    from importlib.metadata import entry_points  # slow to import, and needed for unknown names only

    from ..alias import alias_runtime

    every = entry_points()
    group = every.select(group=GROUP) if hasattr(every, "select") else every.get(GROUP, ())  # before Python 3.10
    for point in group:
        if point.name == name:
            alias_runtime()
            try:
                opener: Callable[[Fields], Task] = point.load()
            except (ImportError, AttributeError) as e:
                raise BackendMissing(f"task {name!r}: {point.value!r} cannot be loaded ({e}); reinstall it") from e
            return opener
    return None
