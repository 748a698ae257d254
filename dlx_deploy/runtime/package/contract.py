"""Whether two packages may be compared answer by answer: they read the same, by the same rules, and answer the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional

from ..words import line, shortened
from .contents import Package

if TYPE_CHECKING:
    from ..tasks.task import Task
    from ..untyped import JsonTable

__all__ = ["contract_difference", "contract_of"]

INSIDE = ("mean", "std")
"""Of the preprocessing: what the graph does, each its own way."""
GOLDEN = "golden/"


def contract_of(task: Task, preprocessing: JsonTable) -> Dict[str, object]:
    """What a package promises to who calls it, by what it is called in messages."""
    inputs, outputs = task.inputs, task.outputs
    framing = getattr(inputs, "framing", None)
    rules = {key: value for key, value in preprocessing.items() if key not in INSIDE}
    return {
        "task": task.name,
        "inputs": inputs.tensors,
        "outputs": outputs.tensors,
        **{name: value for part in (inputs, outputs) for name, value in part.fields().items()},
        "preprocessing": rules if framing is None else framing,
        **{name: value for name, value in inputs.members().items() if not name.startswith(GOLDEN)},
    }


def contract_difference(ours: Dict[str, object], package: Package) -> Optional[str]:
    """What is another in ``package``, for people; ``None`` where all is the same."""
    theirs = contract_of(package.task, package.meta["preprocessing"])
    for name in {**ours, **theirs}:
        one, other = ours.get(name), theirs.get(name)
        if one != other:
            if isinstance(one, bytes) or isinstance(other, bytes):
                return f"its {line(name)} has other bytes"
            return f"its {line(name)} is {line(shortened(other))}, here it is {line(shortened(one))}"
    return None
