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


def _begin() -> None:
    """Inside a package: imports take code that is kept. Python would compile each module, and most of them twice."""
    from types import ModuleType
    from zipimport import zipimporter

    own, zipped = globals()["__spec__"].name, zipimporter(__path__[0])  # Python 3.8 says no ``__package__`` yet

    def run(name: str, code: Any) -> Any:
        module = sys.modules[f"{own}.{name}"] = ModuleType(f"{own}.{name}")
        module.__package__, module.__loader__ = own, globals()["__loader__"]
        exec(code, module.__dict__)
        return module

    for name in ("digests", "kept_code"):
        module = run(name, zipped.get_code(f"{own}.{name}"))
    kept = module.Kept(zipped)
    run("code_cache", kept.code(zipped, f"{zipped.prefix}code_cache.py")).keep_compiled(own, kept)


if hasattr(globals().get("__loader__"), "archive"):
    _begin()
