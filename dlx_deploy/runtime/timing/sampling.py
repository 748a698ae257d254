"""Timings of several callables in turn: a warm-up that ends when they are steady, then rounds spread over time."""

from __future__ import annotations

import math
import time
from statistics import mean, median
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from ..errors import InputError
from ..records import record
from ..telling import Tell, silent
from .latency import Latency, summarise
from .state import MachineState, Watch

__all__ = ["BUILD_PACE", "JUDGED_S", "NEAR_S", "PACE", "Measured", "Sampled", "Sampling", "measure", "sample"]

Calls = Mapping[str, Callable[[], object]]

PACE = 100.0  # rounds a second at most where a verdict is asked for: 300 then meet what comes and goes within 3 s
BUILD_PACE = 300.0  # where several models are timed: a few hundred timings of a small one would else be one moment's
JUDGED_S, NEAR_S = 3.0, 10.0  # what a verdict rests on at least, and where a budget is near what was measured
BURST = 7  # rounds between two pauses; no divisor of a block, or the slow first one of each would all be in one row
WINDOW, WINDOWS = 10, 3  # rounds of the warm-up that are one median, and how many of these must be alike …
STEADY = 0.1  # … each within so much of their mean
WARMUP_TIMES, WARMUP_S = 10, 10.0  # a warm-up that is never steady ends after so many times its rounds, or so long


@record
class Sampling:
    """How much is timed: at least ``rounds`` and ``min_s`` seconds, and no longer than ``max_s`` whatever is missing.

    There are at most ``pace`` rounds a second (0: any number). ``warmup``: rounds before, that are not timed; from 30
    on they go on until the medians of the last three windows of 10 are each within 10 % of their mean, at most ten
    times as many or for ten seconds. ``settled`` is asked once, of the timings so far, when all that is done: where it
    says no, ``near_s`` seconds are measured.
    """

    rounds: int
    warmup: int = WINDOW * WINDOWS
    pace: float = PACE
    min_s: float = 0.0
    max_s: float = math.inf
    near_s: float = 0.0
    settled: Optional[Callable[[Mapping[str, List[int]]], bool]] = None


@record
class Sampled:
    """Per callable its timings in nanoseconds, in the order measured, over ``seconds``.

    ``steady``: the warm-up ended because timings no longer changed. ``cut``: ``max_s`` ended the measurement.
    """

    timings: Dict[str, List[int]]
    warmup_rounds: int
    steady: bool
    seconds: float
    cut: bool = False
    state: Optional[MachineState] = None

    @property
    def noise(self) -> Tuple[str, ...]:
        """Why the timings cannot be relied on, if so."""
        return self.state.noise if self.state else ()

    def measured(self) -> Measured:
        """What the timings come to."""
        return Measured({name: summarise(timings) for name, timings in self.timings.items()}, self.state)


@record
class Measured:
    """The latency of each callable, and what the machine did meanwhile, if that was watched."""

    latencies: Mapping[str, Latency]
    state: Optional[MachineState] = None


def sample(calls: Calls, sampling: Sampling, tell: Tell = silent, watch: Optional[Watch] = None) -> Sampled:
    """The timings of ``calls``. ``tell`` hears of each burst of rounds, outside of what is timed.

    Every round runs every callable once, starting with another one each time, so that a drift of the clock or a
    busy neighbour meets all of them alike. Pauses keep to the pace; what runs first after one, or after a look at the
    machine by ``watch``, is not timed.

    Raises:
        InputError: ``rounds`` is under 1, ``warmup`` under 0, or the seconds are no range.
    """
    if sampling.rounds < 1 or sampling.warmup < 0:
        given = f"rounds is {sampling.rounds} and warmup {sampling.warmup}"
        raise InputError(f"{given}; they must be at least 1 and 0")
    if not 0 <= sampling.min_s <= sampling.max_s or not sampling.max_s > 0:
        given = f"the seconds to measure are {sampling.min_s:g} to {sampling.max_s:g}"
        raise InputError(f"{given}; must be a range from 0 on, the latter over 0")
    return _Turns(calls, tell, watch).sampled(sampling)


def measure(calls: Calls, sampling: Sampling, tell: Tell = silent, watch: Optional[Watch] = None) -> Measured:
    """The latency of each callable, as ``sample`` times them.

    Raises:
        InputError: as ``sample``.
    """
    return sample(calls, sampling, tell, watch).measured()


class _Turns:
    """Rounds over the callables, counted; the first of each round is another one than that of the round before."""

    def __init__(self, calls: Calls, tell: Tell, watch: Optional[Watch]) -> None:
        self._calls, self._names, self._tell, self._watch = calls, list(calls), tell, watch
        self._rounds = 0

    def sampled(self, sampling: Sampling) -> Sampled:
        steady = self._warm_up(sampling.warmup)
        warmup, timings, began = self._rounds, self._empty(), time.perf_counter_ns()
        done, passed_s, least_s, asked = 0, 0.0, sampling.min_s, sampling.settled is None
        if self._watch:
            self._watch.begin()
        while (done < sampling.rounds or passed_s < least_s) and (passed_s < sampling.max_s or not done):
            if done % BURST == 0:
                self._tell(done, max(sampling.rounds, done + 1), f"{sampling.rounds} timed rounds")
                self._keep_pace(done, sampling.pace, began)
            self._round(timings)
            done, passed_s = done + 1, (time.perf_counter_ns() - began) / 1e9
            if not asked and done >= sampling.rounds and passed_s >= least_s:
                asked = True
                if sampling.settled and not sampling.settled(timings):
                    least_s = sampling.near_s
        state = self._watch.end() if self._watch else None
        return Sampled(timings, warmup, steady, passed_s, done < sampling.rounds, state)

    def _warm_up(self, rounds: int) -> bool:
        """Runs at least ``rounds`` rounds; whether the last ones were alike."""
        timings, began = self._empty(), time.perf_counter_ns()
        while self._rounds < rounds:
            self._tell(self._rounds, rounds, "warm-up")
            self._round(timings)
        if rounds < WINDOW * WINDOWS:
            return True  # a warm-up of this length was asked for
        while not (steady := all(map(_steady, timings.values()))):
            if self._rounds >= WARMUP_TIMES * rounds or time.perf_counter_ns() - began > WARMUP_S * 1e9:
                break
            for _ in range(WINDOW):
                self._round(timings)
        return steady

    def _keep_pace(self, done: int, pace: float, began: int) -> None:
        looked = self._watch is not None and self._watch.look()
        ahead_s = done / pace - (time.perf_counter_ns() - began) / 1e9 if pace else 0.0
        if ahead_s > 0:
            time.sleep(ahead_s)
        if looked or ahead_s > 0:
            for name in self._names:
                self._calls[name]()

    def _round(self, timings: Dict[str, List[int]]) -> None:
        clock, first = time.perf_counter_ns, self._rounds % len(self._names)
        for name in self._names[first:] + self._names[:first]:
            call = self._calls[name]
            start = clock()
            call()
            timings[name].append(clock() - start)
        self._rounds += 1

    def _empty(self) -> Dict[str, List[int]]:
        return {name: [] for name in self._names}


def _steady(timings: List[int]) -> bool:
    """Whether the last windows of a warm-up are alike."""
    ends = range(len(timings) - WINDOW * (WINDOWS - 1), len(timings) + 1, WINDOW)
    medians = [median(timings[end - WINDOW : end]) for end in ends]
    middle = mean(medians)
    return all(abs(one - middle) <= STEADY * middle for one in medians)
