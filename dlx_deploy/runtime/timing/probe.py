"""A predictor whose calls are looked into: how long its backend takes of each, and what came out of some of them."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import SelfTestFailed
from ..predictor import Predictor, Run
from ..records import record
from ..tasks.arrays import Arrays, count_of, joined, rows_of
from ..untyped import Array

__all__ = ["Phases", "Probe"]

KEPT, KEPT_BYTES = 16, 64 * 2**20  # calls whose outputs are kept, and what these may hold together


@record
class Phases:
    """Where the time of a call goes, medians in milliseconds: reading and preparing, the backend, the answer of it."""

    pre_ms: float
    inference_ms: float
    post_ms: float


class Probe:
    """Calls ``predict``. Each of the calls is as likely to be kept as any other, so a backend cannot know which."""

    def __init__(self, predictor: Predictor) -> None:
        self._own, self._predictor = predictor, predictor.through(self._through)
        self._random = random.Random(0)
        self._spans: List[Tuple[int, int]] = []
        self._outputs: List[Dict[str, Array]] = []
        self._parts: List[Tuple[int, int, int]] = []
        self._kept: List[Tuple[object, Dict[str, Array]]] = []
        self._last: Optional[Tuple[object, Dict[str, Array]]] = None

    def call(self, given: object) -> None:
        """``predict``, once."""
        self._spans, self._outputs = [], []
        began = time.perf_counter_ns()
        self._predictor.predict(given)
        ended = time.perf_counter_ns()
        if self._spans:
            inference = sum(end - start for start, end in self._spans)
            pre = self._spans[0][0] - began
            self._parts.append((pre, inference, ended - began - pre - inference))
            self._keep(given)

    def phases(self, skipped: int) -> Optional[Phases]:
        """Of all calls but the first ones, ``None`` if none reached the backend."""
        parts = self._parts[skipped:] or self._parts
        if not parts:
            return None
        return Phases(*(median(part[i] for part in parts) / 1e6 for i in range(3)))

    def check(self, expected: Callable[[object], Arrays]) -> int:
        """How many kept outputs are what is ``expected`` of what was given, which all of them are.

        Raises:
            SelfTestFailed: one is not; what is fast by answering something else is not fast.
        """
        package, backend = self._own.package, self._own.backend
        exact = package.exact_qdq and backend.record.exact
        tolerances = {name: tolerance.on(exact) for name, tolerance in package.tolerances.items()}
        kept = [*self._kept, *([self._last] if self._last else [])]
        for given, outputs in kept:
            wanted = expected(given)
            outputs = rows_of(outputs, slice(count_of(wanted)))  # the last block of a fixed batch size is filled up
            agreement = package.task.outputs.compare(outputs, wanted, tolerances)
            wrong = np.flatnonzero(~agreement.rows)
            if len(wrong):
                _, value, answer = package.task.outputs.difference(outputs, wanted, int(wrong[0]))
                raise SelfTestFailed(
                    f"a timed run gave other outputs than it must ({len(wrong)} of {len(agreement.rows)} rows): {value}"
                    f"{f'; {answer}' if answer else ''}. Its latency says nothing: run selftest, try another "
                    "onnxruntime version or --backend, and do not deploy on this machine until it passes"
                )
        return len(kept)

    def _through(self, run: Run) -> Run:
        clock = time.perf_counter_ns

        def timed(names: Optional[Sequence[str]], feeds: Arrays) -> List[Array]:
            start = clock()
            values = run(names, feeds)
            self._spans.append((start, clock()))
            self._outputs.append(dict(zip(names or (), values)))
            return values

        return timed

    def _keep(self, given: object) -> None:
        """The last call, and by reservoir sampling (Vitter 1985) some of all."""
        size = sum(array.nbytes for outputs in self._outputs for array in outputs.values())
        room, seen = max(1, min(KEPT, KEPT_BYTES // max(size, 1))), len(self._parts)
        self._last = (given, self._whole())
        if len(self._kept) < room:
            self._kept.append(self._last)
        else:
            place = self._random.randrange(seen)
            if place < len(self._kept):
                self._kept[place] = self._last

    def _whole(self) -> Dict[str, Array]:
        """The outputs of a call; a model of fixed batch size gave them in blocks."""
        return self._outputs[0] if len(self._outputs) == 1 else joined(self._outputs)
