"""The device side: a package read, checked and run with numpy and onnxruntime alone. Copied into every package.

    from dlx_deploy.runtime import load
    predictor = load("digits-0.1.0-jetson.dlx")
    predictor.predict(images).labels        # images: uint8[N, H, W, C], NHWC, 0..255, or paths of image files

Importing this costs nothing: a name's module is imported when the name is first used (``exports``). Inside a package
Python compiles this module twice at every start, so it holds what must be here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any


def _begin() -> None:
    """Inside a package: imports take code that is kept. Python would compile each module, and most of them twice."""
    from types import ModuleType
    from zipimport import zipimporter

    own = globals()["__spec__"].name  # Python 3.8 says no ``__package__`` yet
    zipped = zipimporter(globals()["__path__"][0])

    def run(name: str, code: Any) -> Any:
        module = sys.modules[f"{own}.{name}"] = ModuleType(f"{own}.{name}")
        module.__package__, module.__loader__ = own, globals()["__loader__"]
        exec(code, module.__dict__)
        return module

    kept = run("kept_code", zipped.get_code(f"{own}.kept_code")).Kept(zipped)
    run("code_cache", kept.code(zipped, f"{zipped.prefix}code_cache.py")).keep_compiled(own, kept)


if hasattr(globals().get("__loader__"), "archive"):
    _begin()

from .exports import __all__, __dir__, __getattr__  # noqa: E402, F401  # after what makes imports quick

if TYPE_CHECKING:
    from .exports import *  # noqa: F403
