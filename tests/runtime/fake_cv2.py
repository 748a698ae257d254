"""OpenCV as far as videos are read with it: captures that give frames from a list, so that no codec is needed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["fake_opencv"]


def fake_opencv(frames: list[Any], expected: int | None = None, rate: float = 10.0, opens: bool = True) -> ModuleType:
    """A module ``cv2`` whose every capture gives ``frames`` (BGR; ``None``: cannot be decoded).

    ``expected``: how many of them the file's header promises. ``captures``: those that were made.
    """
    module = ModuleType("cv2")
    constants = {"CAP_PROP_FRAME_COUNT": 7, "CAP_PROP_POS_MSEC": 0, "CAP_PROP_BUFFERSIZE": 38, "CAP_GSTREAMER": 1800}
    captures: list[Any] = []

    class VideoCapture:
        def __init__(self, source: int | str, api: int = 0) -> None:
            self.source, self.api, self.number, self.decoded, self.released = source, api, -1, 0, False
            self.settings: dict[int, float] = {}
            captures.append(self)

        def isOpened(self) -> bool:
            return opens

        def get(self, name: int) -> float:
            if name == constants["CAP_PROP_FRAME_COUNT"]:
                return len(frames) if expected is None else expected
            return 1000 * self.number / rate

        def set(self, name: int, value: float) -> bool:
            self.settings[name] = value
            return True

        def grab(self) -> bool:
            self.number += 1
            return self.number < len(frames)

        def retrieve(self) -> tuple[bool, Any]:
            self.decoded += 1
            frame = frames[self.number]
            return frame is not None, frame

        def release(self) -> None:
            self.released = True

    module.__dict__.update(constants, VideoCapture=VideoCapture, captures=captures, COLOR_BGR2RGB=4)
    module.__dict__["cvtColor"] = lambda frame, code: np.ascontiguousarray(frame[..., ::-1]) if code == 4 else None
    return module
