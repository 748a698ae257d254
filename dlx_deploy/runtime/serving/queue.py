"""Many callers before one session: their samples are run together, as many as are there when a worker is free.

No thread of its own: a caller runs a batch, its own call in it, and hands the next one to another (``line``). A lone
caller runs its call at once, as it would without a queue.
"""

from __future__ import annotations

from types import TracebackType
from typing import Callable, Dict, List, Optional, Sequence, Type

from ..errors import InputError, RuntimeFault
from ..machine import available_cores
from ..package.rules import MAX_BATCH
from ..predictor import Predictor
from ..tasks.arrays import Arrays, joined, rows_of
from ..untyped import Array
from .calls import SYSTEM, Call, Clock, Ran
from .feeds import Joiner, check_feeds
from .line import Line

__all__ = ["MicroBatcher", "usual_workers"]

USUAL_BATCH = 16
USUAL_CAPACITY = 256
MAX_CAPACITY = 1_000_000
MAX_WAIT_MS = 60_000.0
MAX_WORKERS = 256


class MicroBatcher:
    """``predictor`` for many threads at once: what they give is run in batches, first come, first served.

    ``max_batch``: samples in a batch at most; by default the model's fixed size, or 16. ``max_wait_ms``: how long a
    call waits for others while a worker is free; 0: not at all, batches then form while all are busy. ``capacity``:
    samples that may wait, beyond which callers are refused (``Busy``). ``observe`` hears of each batch that was run, in
    the thread of one of its callers. ``workers``: batches that run at once, each on cores of its own
    (``usual_workers``).

    Answers are those of ``Predictor.run`` on the same batch: the bits of a sample may depend on how many there are as
    far as the backend's do, and texts are padded to the longest of their batch.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self,
        predictor: Predictor,
        max_batch: Optional[int] = None,
        max_wait_ms: float = 0.0,
        capacity: int = USUAL_CAPACITY,
        observe: Optional[Callable[[Ran], None]] = None,
        clock: Clock = SYSTEM,
        workers: int = 1,
    ) -> None:
        self.predictor = predictor
        _check("workers", workers, 1, MAX_WORKERS)
        if workers > 1 and not predictor.backend.record.concurrent:
            raise InputError(f"workers is {workers}; {predictor.backend.name} runs one batch at a time: leave it out")
        self.max_batch = max_batch or predictor.package.batch or USUAL_BATCH
        _check("max_batch", self.max_batch if max_batch is None else max_batch, 1, MAX_BATCH)
        _check("max_wait_ms", max_wait_ms, 0, MAX_WAIT_MS)
        _check("capacity", capacity, 1, MAX_CAPACITY)
        self.capacity, self._observe, self._clock = capacity, observe, clock
        self._joiner = Joiner(predictor.package.task)
        self._line = Line(self.max_batch, max_wait_ms / 1e3, capacity, self._joiner.is_joinable, clock, workers)

    @property
    def waiting(self) -> int:
        """How many samples wait now."""
        return self._line.waiting

    def predict(self, given: object, timeout_s: Optional[float] = None) -> object:
        """As ``Predictor.predict``, read in this thread and run with others.

        Raises:
            InputError, BackendMissing, PackageError: as ``Predictor.predict``. Busy: as ``submit``.
        """
        outputs = self.submit(self.predictor.read_given(given), timeout_s)
        return self.predictor.answers(outputs, given)

    def submit(self, feeds: Arrays, timeout_s: Optional[float] = None) -> Dict[str, Array]:
        """The model's outputs for ``feeds``, arrays by name as ``Predictor.read`` gives them; waits for them.

        Every array has the batch axis in front. ``feeds`` are only read; the outputs may share memory with those of
        other callers, whose rows are not in them. A call of more than ``max_batch`` samples is run by itself.

        Raises:
            InputError: other arrays than the model's, or more samples than may ever wait.
            Busy: too many samples wait; ``Expired``: no answer within ``timeout_s``, and what had not begun by then
                is not run; ``Stopped``: the queue was closed.
            PackageError: as ``Predictor.run``, of these samples alone.
        """
        check_feeds(self.predictor.package.task, feeds)
        call = Call(feeds, self._clock.now(), timeout_s)
        if call.count > self.capacity:
            raise InputError(f"{call.count} samples are in one call; at most {self.capacity} may wait: give fewer")
        if self._line.enter(call) or self._line.is_woken_to_lead(call):
            ran = self._lead(call)
            if ran is not None and self._observe is not None:
                self._observe(ran)
        return call.result()

    def warm_up(self, sizes: Optional[Sequence[int]] = None) -> None:
        """Runs batches of these ``sizes``, by default 1, 2, 4, … ``max_batch``, so that no caller waits for what a
        backend does at the first run of a size.

        Raises:
            PackageError: as ``Predictor.run``.
        """
        golden = self.predictor.package.golden_inputs
        own = self.predictor.package.batch
        for size in sizes or ([own] if own else _powers(self.max_batch)):
            self.predictor.run(rows_of(golden, self._joiner.turns(golden, size)))

    def close(self, drain: bool = True) -> None:
        """Takes no more calls, and returns when none runs any longer; those that wait are run before that, or, without
        ``drain``, end with ``Stopped``. May be called again, and from several threads."""
        self._line.close(drain)

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close(drain=kind is None)

    def _lead(self, call: Call) -> Optional[Ran]:
        """Runs a batch with ``call`` in it, or nothing if its time is over, and lets the next caller run the next."""
        try:
            taken = self._line.take(call)
            return self._run(taken) if taken else None
        finally:
            self._line.leave(call)

    def _run(self, taken: List[Call]) -> Ran:
        """Answers ``taken``; if they cannot be run together, the first by itself, and the others do not join again.

        Raises:
            PackageError: the first cannot be run by itself either.
        """
        began = self._clock.now()
        together = len(taken) > 1
        try:
            outputs = self._outputs(self._joiner.join([one.feeds for one in taken]))
        except RuntimeFault:
            if not together:
                raise
            for one in taken:
                one.alone = True
            taken, outputs = taken[:1], self._outputs(taken[0].feeds)
        ended = self._clock.now()
        self._line.answer(taken, outputs)
        return Ran(sum(one.count for one in taken), ended - began, tuple(began - one.since for one in taken))

    def _outputs(self, feeds: Arrays) -> Dict[str, Array]:
        """What the model gives for ``feeds``, at most ``max_batch`` samples of it at a time."""
        count = len(next(iter(feeds.values())))
        if count <= self.max_batch:
            return self.predictor.run(feeds)
        blocks = range(0, count, self.max_batch)
        return joined([self.predictor.run(rows_of(feeds, slice(i, i + self.max_batch))) for i in blocks])


def usual_workers(predictor: Predictor) -> int:
    """How many batches run at once without taking each other's cores; one where a run uses all of them."""
    threads = predictor.options.threads
    if threads == 0 or not predictor.backend.record.concurrent:
        return 1
    return min(max(1, available_cores() // threads), MAX_WORKERS)


def _powers(most: int) -> List[int]:
    """1, 2, 4, … and ``most``."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{name} is {value}; must be {least:g} to {most:g}")
