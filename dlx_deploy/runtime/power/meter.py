"""Joules per inference over a window of time: sensors are read by a thread, idle power is measured before, subtracted.

The window is cut into blocks of equal time; how far they differ is the spread, and bounds the mean by Student's t.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from statistics import mean, stdev
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..records import record
from ..statistics.student import student_quantile
from .channels import SensorError
from .sensors import Sensors

__all__ = ["Energy", "Meter", "Reading", "Window", "energy_of"]

INTERVAL_S = 0.05  # between two readings: each costs a Jetson's I2C bus a few milliseconds
IDLE_S = 2.0
BLOCK_S = 0.2  # at least, and four readings: RAPL moves once in a millisecond, an INA3221 once in a few
LEAST_BLOCKS, MOST_BLOCKS = 5, 20
BELOW_IDLE = 0.01  # of what was taken: rounding, and no other work that ended
LEAST_PER_BLOCK = 2  # inferences: one that straddles two blocks is counted in one of them


@record
class Energy:
    """The energy of one inference in millijoules, idle power subtracted, over ``seconds`` that held ``inferences``.

    ``lower_mj`` and ``upper_mj`` bound its mean at the confidence asked for, each. ``spread_mj``: the standard
    deviation of the ``blocks``. ``sensors``: what is counted.
    """

    per_inference_mj: float
    lower_mj: float
    upper_mj: float
    spread_mj: float
    blocks: int
    inferences: int
    seconds: float
    power_w: float
    idle_w: float
    sensors: Tuple[str, ...]

    def describe(self) -> str:
        """A line for people."""
        return (
            f"energy: {self.per_inference_mj:.4g} mJ an inference beyond idle ({self.lower_mj:.4g} to "
            f"{self.upper_mj:.4g} mJ), {self.power_w:.3g} W of which {self.idle_w:.3g} W idle, by "
            f"{' + '.join(self.sensors)}"
        )


@record
class Reading:
    """The energy, or ``why`` it is unknown."""

    energy: Optional[Energy] = None
    why: str = ""

    def describe(self) -> str:
        """A line for people."""
        return self.energy.describe() if self.energy else f"energy not measured: {self.why}"


class Window(NamedTuple):
    """Seconds, joules and inferences: what the counters stand at, or by how much they grew between two readings."""

    at_s: float
    joules: float
    inferences: int


class Meter:
    """Reads ``sensors`` while work is done that calls ``count``; use it once."""

    def __init__(self, sensors: Sensors, processor: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._sensors, self._clock = sensors, clock
        self._why = sensors.missing(processor)
        self._inferences = 0
        self._idle: Tuple[Window, ...] = ()
        self._busy: Tuple[Window, ...] = ()

    @property
    def is_useful(self) -> bool:
        """Whether there is something to read."""
        return not self._why

    def count(self, inferences: int) -> None:
        """So many more were done."""
        self._inferences += inferences

    def rest(self, seconds: float = IDLE_S) -> None:
        """Measure what the machine takes with the model loaded and nothing to do; at once where nothing is read."""
        if not self._why:
            with self._reading() as samples:
                time.sleep(seconds)
            self._idle = tuple(samples)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, what is counted is measured."""
        if self._why:
            yield
            return
        with self._reading() as samples:
            yield
        self._busy = tuple(samples)

    def result(self, confidence: float) -> Reading:
        """What was measured."""
        return Reading(why=self._why) if self._why else energy_of(self._idle, self._busy, self._sensors, confidence)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[List[Window]]:
        samples: List[Window] = []
        ended = threading.Event()

        def watch() -> None:
            while self._read(samples) and not ended.wait(INTERVAL_S):
                pass

        watcher = threading.Thread(target=watch, name="power", daemon=True)
        watcher.start()
        try:
            yield samples
        finally:
            ended.set()
            watcher.join()
            self._read(samples)

    def _read(self, samples: List[Window]) -> bool:
        now, inferences = self._clock(), self._inferences
        try:
            joules = sum(channel.joules(now) for channel in self._sensors.channels)
        except SensorError as e:
            self._why = self._why or str(e)
            return False
        samples.append(Window(now, joules, inferences))
        return True


def energy_of(idle: Sequence[Window], busy: Sequence[Window], sensors: Sensors, confidence: float) -> Reading:
    """What samples of two windows say."""
    resting, working = _blocks(idle, 0), _blocks(busy, LEAST_PER_BLOCK)
    if len(resting) < LEAST_BLOCKS or len(working) < LEAST_BLOCKS:
        seen = _between(busy[0], busy[-1]) if busy else Window(0.0, 0.0, 0)
        least = f"rule: {LEAST_BLOCKS} blocks of {BLOCK_S:g} s or longer, each of {LEAST_PER_BLOCK} inferences or more"
        return Reading(why=f"{seen.at_s:.2g} s with {seen.inferences} inferences are too short ({least})")
    idle_w = [block.joules / block.at_s for block in resting]
    each = [(block.joules - mean(idle_w) * block.at_s) / block.inferences for block in working]
    seconds, joules = sum(block.at_s for block in working), sum(block.joules for block in working)
    inferences = sum(block.inferences for block in working)
    share = seconds / inferences  # of idle power, in each inference
    error = math.hypot(stdev(each) / math.sqrt(len(each)), share * stdev(idle_w) / math.sqrt(len(idle_w)))
    reach = student_quantile(confidence, min(len(each), len(idle_w)) - 1) * error
    value = joules / inferences - mean(idle_w) * share
    if value + reach < -BELOW_IDLE * joules / inferences:
        return Reading(
            why=f"the machine took {joules / seconds:.3g} W while it ran and {mean(idle_w):.3g} W before: something "
            "else was at work then; measure on a quieter machine"
        )
    return Reading(
        Energy(
            per_inference_mj=value * 1e3,
            lower_mj=(value - reach) * 1e3,
            upper_mj=(value + reach) * 1e3,
            spread_mj=stdev(each) * 1e3,
            blocks=len(working),
            inferences=inferences,
            seconds=seconds,
            power_w=joules / seconds,
            idle_w=mean(idle_w),
            sensors=sensors.names,
        )
    )


def _blocks(samples: Sequence[Window], least: int) -> Sequence[Window]:
    """What went on in each of as many blocks as there can be: its seconds, joules and inferences; none if too few."""
    if len(samples) < 2:
        return ()
    seconds = samples[-1].at_s - samples[0].at_s
    for count in range(min(MOST_BLOCKS, int(seconds / BLOCK_S + 1e-9)), 0, -1):
        ends = [_nearest(samples, samples[0].at_s + seconds * i / count) for i in range(count + 1)]
        blocks = [_between(ends[i], ends[i + 1]) for i in range(count)]
        if all(block.at_s > 0 and block.inferences >= least for block in blocks):
            return blocks
    return ()


def _nearest(samples: Sequence[Window], at_s: float) -> Window:
    return min(samples, key=lambda sample: abs(sample.at_s - at_s))


def _between(early: Window, late: Window) -> Window:
    return Window(late.at_s - early.at_s, late.joules - early.joules, late.inferences - early.inferences)
