"""The device side: a package read, checked and run with numpy and onnxruntime alone. Copied into every package.

    from dlx_deploy.runtime import load
    predictor = load("digits-0.1.0-jetson.dlx")
    predictor.predict(images).labels        # images: uint8[N, H, W, C], NHWC, 0..255, or paths of image files

Importing this costs nothing: a name's module is imported when the name is first used.
"""

from __future__ import annotations

import sys
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
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = HOMES.get(name, "errors")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> List[str]:
    return sorted(__all__)


def _first(name: str) -> Any:
    """A module of the zip that this is in, compiled once: Python's importer compiles twice what it takes from a zip."""
    from types import ModuleType
    from zipimport import zipimporter

    own = globals()["__spec__"].name
    module = sys.modules[f"{own}.{name}"] = ModuleType(f"{own}.{name}")
    module.__package__, module.__loader__ = own, globals()["__loader__"]
    exec(zipimporter(__path__[0]).get_code(module.__name__), module.__dict__)
    return module


if hasattr(globals().get("__loader__"), "archive"):  # inside a package
    _first("digests")
    # Python 3.8 says no ``__package__`` yet.
    _first("code_cache").keep_compiled(globals()["__spec__"].name, __path__[0])
