"""Where samples come from: what a command line named, one after another, and frames that have no file of their own."""

from __future__ import annotations

from pathlib import PurePath
from typing import Dict, Iterator, Optional

from ..records import record

__all__ = ["Sample", "Source"]


@record
class Sample:
    """One sample: ``given`` is what ``Inputs.read`` takes.

    Frames of a video or camera have a number, from 0, and a time in seconds from its beginning.
    """

    name: str
    given: object
    frame: Optional[int] = None
    time_s: Optional[float] = None

    @property
    def fields(self) -> Dict[str, object]:
        """What its answer says of it beside its name, JSON-ready."""
        return {} if self.frame is None else {"frame": self.frame, "time_s": self.time_s}

    @property
    def file_name(self) -> str:
        """What files about it are called after: ``clip.mp4``, frame 7: ``clip-000007.png``."""
        return self.name if self.frame is None else f"{PurePath(self.name).stem}-{self.frame:06d}.png"


@record
class Source:
    """Samples that are read as they are asked for. ``live``: they come over time, so answers are given as they come."""

    samples: Iterator[Sample]
    live: bool = False
