"""The plainest queue before a model: one caller at a time runs it, and some others may wait."""

from __future__ import annotations

import threading
from typing import Protocol

from ..predictor import Predictor
from ..tasks.arrays import Arrays

__all__ = ["Busy", "Direct", "Queue"]


class Busy(Exception):
    """Raised where as many callers wait as may, or one has waited as long as it would."""


class Queue(Protocol):
    """What stands between callers and a model."""

    def submit(self, feeds: Arrays, timeout_s: float) -> Arrays:
        """The model's outputs for ``feeds``, as ``Predictor.run``.

        Raises:
            Busy: the queue is full, or the time is over. PackageError: as ``Predictor.run``.
        """


class Direct:
    """Runs each caller's inputs by themselves, one after the other; ``capacity``: how many may wait or run."""

    def __init__(self, predictor: Predictor, capacity: int) -> None:
        self._predictor = predictor
        self._places, self._turn = threading.BoundedSemaphore(capacity), threading.Lock()

    def submit(self, feeds: Arrays, timeout_s: float) -> Arrays:
        """As ``Queue.submit``."""
        if not self._places.acquire(blocking=False):
            raise Busy("as many requests wait as may")
        try:
            if not self._turn.acquire(timeout=timeout_s):
                raise Busy(f"the model was not free within {timeout_s:g} s")
            try:
                return self._predictor.run(feeds)
            finally:
                self._turn.release()
        finally:
            self._places.release()
