"""dlx-deploy: from a PyTorch model to a verified inference package for an edge device.

import dlx_deploy
dlx_deploy.load("digits-0.1.0-jetson.dlx").predict(images).labels
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlx_deploy.runtime.predictor import load

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlx_deploy.runtime.predictor import load

    return load
