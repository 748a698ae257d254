"""Several queries in flight: a thread for each stream, which asks anew as soon as it is answered."""

from __future__ import annotations

import threading
import time
from typing import Callable, List, Optional, Sequence, Tuple

from .sampling import Sampled, Sampling
from .state import Watch

__all__ = ["sample_streams"]

POLL_S = 0.05
NAME = "predict"


def sample_streams(calls: Sequence[Callable[[], object]], sampling: Sampling, watch: Optional[Watch] = None) -> Sampled:
    """The timings of all streams' calls, in the order in which they were answered; none waits for another.

    ``pace`` does not count: streams leave no pauses.

    Raises:
        what a call raises.
    """
    streams = _Streams(calls, sampling.warmup)
    return streams.sampled(sampling, watch)


class _Streams:
    def __init__(self, calls: Sequence[Callable[[], object]], warmup: int) -> None:
        self._calls, self._warmup = calls, warmup
        self._ready, self._stop = threading.Barrier(len(calls) + 1), threading.Event()
        self._answered: List[List[Tuple[int, int]]] = [[] for _ in calls]
        self._fault: Optional[BaseException] = None

    def sampled(self, sampling: Sampling, watch: Optional[Watch]) -> Sampled:
        threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(len(self._calls))]
        for thread in threads:
            thread.start()
        try:
            self._meet()
            if watch:
                watch.begin()
            began, passed_s = time.perf_counter_ns(), 0.0
            while not self._stop.is_set() and not self._enough(sampling, passed_s):
                time.sleep(POLL_S)
                if watch:
                    watch.look()
                passed_s = (time.perf_counter_ns() - began) / 1e9
            state = watch.end() if watch else None
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._fault is not None:
            raise self._fault
        ended = (time.perf_counter_ns() - began) / 1e9
        answered = sorted(pair for stream in self._answered for pair in stream)
        timings = {NAME: [took for _, took in answered]}
        return Sampled(timings, self._warmup, True, ended, len(answered) < sampling.rounds, state)

    def _enough(self, sampling: Sampling, passed_s: float) -> bool:
        done = sum(map(len, self._answered))
        return bool(done) and (passed_s >= sampling.max_s or (done >= sampling.rounds and passed_s >= sampling.min_s))

    def _ask(self, stream: int) -> None:
        call, answered, clock = self._calls[stream], self._answered[stream], time.perf_counter_ns
        try:
            for _ in range(self._warmup):
                call()
            self._ready.wait()
            while not self._stop.is_set():
                start = clock()
                call()
                end = clock()
                answered.append((end, end - start))
        except threading.BrokenBarrierError:  # another stream has failed
            self._stop.set()
        except BaseException as e:  # handed on to the thread that waits
            self._fault = self._fault or e
            self._stop.set()
            self._ready.abort()

    def _meet(self) -> None:
        try:
            self._ready.wait()
        except threading.BrokenBarrierError:
            self._stop.set()
