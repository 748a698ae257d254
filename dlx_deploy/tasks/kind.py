"""More data for a task that there is: a value of ``data.kind`` that another package brings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Data
from dlx_deploy.pipeline.stage import Source
from dlx_deploy.progress import Progress
from dlx_deploy.tasks.task import Inputs, Task

if TYPE_CHECKING:
    from dlx_deploy.nn.data.prepare import DataSource

__all__ = ["DataKind"]


@dataclass(frozen=True)
class DataKind:
    """Data for the task called ``task``: ``source``, ``files`` and ``classes`` as a ``Task`` has them.

    ``own``: what the data are where the user gives no path, else "". ``inputs``: in place of the task's, where such
    data have a size of their own. ``libraries``: the distributions that they come from, beside the one that offers
    this.
    """

    task: str
    own: str
    files: Callable[[Data], dict[str, Source]]
    source: Callable[[Data, Progress], DataSource]
    classes: Callable[[Data], int | None]
    inputs: Inputs | None = None
    libraries: tuple[str, ...] = ()

    def of(self, task: Task, kind: str, distribution: str) -> Task:
        """``task`` as it is with such data, which ``distribution`` offers as ``kind``."""
        brought = (distribution,) if distribution else ()
        return dataclasses.replace(
            task,
            kinds={kind: self.own},
            files=self.files,
            source=self.source,
            classes=self.classes,
            inputs=self.inputs or task.inputs,
            libraries={kind: (*self.libraries, *brought)},
            survey=None,
        )
