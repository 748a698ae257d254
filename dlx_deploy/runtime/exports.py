"""What the runtime offers by name: a name's module is imported when the name is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from .errors import (
        BackendMissing,
        BudgetMissed,
        Busy,
        EngineError,
        InputError,
        PackageError,
        RuntimeFault,
        SelfTestFailed,
        Undecided,
    )
    from .package.trust import Trust
    from .predictor import Predictor, load
    from .serving.queue import MicroBatcher
    from .tasks.predictions import Predictions
    from .watching.watch import Watch

__all__ = [
    "BackendMissing",
    "BudgetMissed",
    "Busy",
    "EngineError",
    "InputError",
    "MicroBatcher",
    "PackageError",
    "Predictions",
    "Predictor",
    "RuntimeFault",
    "SelfTestFailed",
    "Trust",
    "Undecided",
    "Watch",
    "load",
]

HOMES = {
    "MicroBatcher": "serving.queue",
    "Predictions": "tasks.predictions",
    "Predictor": "predictor",
    "Trust": "package.trust",
    "Watch": "watching.watch",
    "load": "predictor",
}
"""Name → module; the others are errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
    module = HOMES.get(name, "errors")
    return getattr(import_module(f"{__package__}.{module}"), name)


def __dir__() -> List[str]:
    return sorted(__all__)
