"""What was asked of a package, what it answered and how long each stage took, as numbers that only grow."""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from typing import Callable, Dict, Iterator, List, Mapping, Tuple

from ..records import record

__all__ = ["BATCH_BOUNDS", "SECONDS_BOUNDS", "STAGES", "Counters", "HistogramSnapshot", "Snapshot", "kind_of"]

MODEL = "model"
STAGES = ("read", "wait", MODEL, "decode")
"""What a request goes through: it is decoded, waits in a queue, is run, and its outputs become answers."""
SECONDS_BOUNDS = (*(float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2.5, 5)), 10.0)
"""10 µs to 10 s: from a small network on its fastest board to what a watchdog ends."""
BATCH_BOUNDS = tuple(float(2**power) for power in range(11))
MOST_KINDS = 32
OTHER = "other"
"""What further kinds of errors are counted as: a name is a series, and series are memory wherever they are kept."""


@record
class HistogramSnapshot:
    """How many values were at most each of ``bounds``, each counted once, and behind them those above the last."""

    bounds: Tuple[float, ...]
    counts: Tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def to_dict(self) -> Dict[str, object]:
        """The histogram as JSON-ready values."""
        return {"count": self.count, "sum": self.total, "bounds": list(self.bounds), "counts": list(self.counts)}


@record
class Snapshot:
    """The counters at one moment. ``answers``: samples answered; ``errors``: by kind; ``stages``: seconds by stage."""

    requests: int
    answers: int
    errors: Mapping[str, int]
    received_bytes: int
    sent_bytes: int
    batch_sizes: HistogramSnapshot
    stages: Mapping[str, HistogramSnapshot]

    def to_dict(self) -> Dict[str, object]:
        """The counters as JSON-ready values."""
        return {
            "requests": self.requests,
            "answers": self.answers,
            "errors": dict(self.errors),
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "batch_sizes": self.batch_sizes.to_dict(),
            "stage_seconds": {name: histogram.to_dict() for name, histogram in self.stages.items()},
        }


class Counters:
    """Counts, from any thread; each call takes about a microsecond."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._requests = self._answers = self._received = self._sent = 0
        self._errors: Dict[str, int] = {}
        self._batches = _Histogram(BATCH_BOUNDS)
        self._stages = {name: _Histogram(SECONDS_BOUNDS) for name in STAGES}

    def request(self, received_bytes: int = 0) -> None:
        """One more was asked."""
        with self._lock:
            self._requests += 1
            self._received += received_bytes

    def answer(self, samples: int, sent_bytes: int = 0) -> None:
        """One was answered, about so many samples."""
        with self._lock:
            self._answers += samples
            self._sent += sent_bytes

    def error(self, kind: str) -> None:
        """One was not, for this kind of reason (``kind_of``); a request without an answer is counted here once."""
        with self._lock:
            known = kind if kind in self._errors or len(self._errors) < MOST_KINDS else OTHER
            self._errors[known] = self._errors.get(known, 0) + 1

    def ran(self, samples: int, seconds: float) -> None:
        """The model was run on so many samples at once, which took so long."""
        with self._lock:
            self._batches.add(samples)
            self._stages[MODEL].add(seconds)

    def took(self, stage: str, seconds: float) -> None:
        """A stage, one of ``STAGES``, took so long."""
        with self._lock:
            self._stages[stage].add(seconds)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Inside is ``stage``; what raises is timed as well."""
        began = self._clock()
        try:
            yield
        finally:
            self.took(stage, self._clock() - began)

    def snapshot(self) -> Snapshot:
        """The counters now, all of one moment."""
        with self._lock:
            return Snapshot(
                self._requests,
                self._answers,
                dict(sorted(self._errors.items())),
                self._received,
                self._sent,
                self._batches.snapshot(),
                {name: histogram.snapshot() for name, histogram in self._stages.items()},
            )


class _Histogram:
    """Counts that grow; its owner holds the lock."""

    def __init__(self, bounds: Tuple[float, ...]) -> None:
        self._bounds, self._total = bounds, 0.0
        self._counts: List[int] = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> HistogramSnapshot:
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)


def kind_of(error: BaseException) -> str:
    """What an error is counted as: the name of its class, which says nothing of who asked what."""
    return type(error).__name__
