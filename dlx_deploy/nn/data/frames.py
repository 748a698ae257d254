"""How ``[data]`` says that pictures become what networks read."""

from __future__ import annotations

from dlx_deploy.config import Data
from dlx_deploy.runtime.tasks.framing import Framing

__all__ = ["framing_of"]

CHANNELS = 3


def framing_of(data: Data) -> Framing:
    """The frame of image files, whose height the configuration says."""
    return Framing(data.height, data.width or data.height, data.channels or CHANNELS)
