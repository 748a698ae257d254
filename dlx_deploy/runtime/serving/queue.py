"""Many callers before one session: their samples are run together, as many as are there when the session is free.

No thread of its own: the caller at the head of the queue runs a batch, its own call in it, and hands the next one to
the caller that is then at the head. A lone caller runs its call at once, as it would without a queue.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Callable, Deque, Dict, List, Optional, Sequence, Type

from ..errors import Busy, InputError, RuntimeFault, Stopped
from ..package.rules import MAX_BATCH
from ..predictor import Predictor
from ..tasks.arrays import Arrays, joined, rows_of
from ..untyped import Array
from .calls import DONE, LEADING, RUNNING, SYSTEM, WAITING, Call, Clock, Ran
from .feeds import Joiner, check_feeds

__all__ = ["MicroBatcher"]

USUAL_BATCH = 16
USUAL_CAPACITY = 256
MAX_CAPACITY = 1_000_000
MAX_WAIT_MS = 60_000.0


class MicroBatcher:
    """``predictor`` for many threads at once: what they give is run in batches, first come, first served.

    ``max_batch``: samples in a batch at most; by default the model's fixed size, or 16. ``max_wait_ms``: how long a
    call waits for others while the session is free; 0: not at all, batches then form while the session is busy.
    ``capacity``: samples that may wait, beyond which callers are refused (``Busy``). ``observe`` hears of each batch
    that was run, in the thread of one of its callers.

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
    ) -> None:
        self.predictor = predictor
        self.max_batch = max_batch or predictor.package.batch or USUAL_BATCH
        _check("max_batch", self.max_batch if max_batch is None else max_batch, 1, MAX_BATCH)
        _check("max_wait_ms", max_wait_ms, 0, MAX_WAIT_MS)
        _check("capacity", capacity, 1, MAX_CAPACITY)
        self.max_wait_s, self.capacity = max_wait_ms / 1e3, capacity
        self._observe, self._clock = observe, clock
        self._joiner = Joiner(predictor.package.task)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: Deque[Call] = deque()
        self._waiting = 0  # samples in the queue
        self._led = False  # whether a caller runs a batch, or is to run the next
        self._gathering: Optional[Call] = None  # whose caller waits for others before it runs
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many samples wait now."""
        return self._waiting

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
        if self._enter(call) or self._is_woken_to_lead(call):
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
        with self._lock:
            self._closed = True
            if not drain:
                self._stop_all()
            self._end_gathering()
            while self._led:
                self._idle.wait()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close(drain=kind is None)

    def _enter(self, call: Call) -> bool:
        """Whether ``call``, now in the queue, is to be run by its caller at once.

        Raises:
            Busy: there is no room, or the queue is closed.
        """
        with self._lock:
            if self._closed:
                raise _stopped()
            if self._led and self._waiting + call.count > self.capacity:
                raise Busy(f"{self._waiting} samples wait, and at most {self.capacity} may; try again later")
            self._queue.append(call)
            self._waiting += call.count
            if self._led:
                if self._waiting >= self.max_batch:
                    self._end_gathering()
                return False
            self._led, call.state = True, LEADING
            return True

    def _is_woken_to_lead(self, call: Call) -> bool:
        """Whether its caller, which waits here, is to run the next batch; if not, ``call`` has ended."""
        try:
            self._clock.wait(call.signal, call.remaining(self._clock.now()))
            with self._lock:
                if call.state == LEADING:
                    return True
                self._give_up(call)
                return False
        except BaseException:  # Ctrl-C in this thread must not leave the others without one that runs them
            with self._lock:
                leads = call.state == LEADING
                self._give_up(call)
                if leads:
                    self._hand_over()
            raise

    def _give_up(self, call: Call) -> None:
        """Ends ``call`` if it has not ended; what runs already runs on, and nobody waits for it."""
        if call.state in (WAITING, LEADING):
            self._remove(call)
        if call.state != DONE:
            call.expire(self._clock.now())

    def _remove(self, call: Call) -> None:
        self._queue.remove(call)
        self._waiting -= call.count

    def _lead(self, call: Call) -> Optional[Ran]:
        """Runs a batch with ``call`` in it, or nothing if its time is over, and lets the next caller run the next."""
        taken: List[Call] = []
        try:
            self._gather(call)
            taken = self._take(call)
            return self._run(taken) if taken else None
        finally:
            with self._lock:
                if call.state == LEADING:  # interrupted before it was taken
                    self._give_up(call)
                # What is not answered goes back to where it was: this caller was interrupted, or it has to run alone.
                back = [one for one in taken if one is not call and one.state == RUNNING]
                for one in reversed(back):
                    one.state = WAITING
                    self._queue.appendleft(one)
                    self._waiting += one.count
                self._hand_over()

    def _gather(self, call: Call) -> None:
        """Waits for others until the batch is full or ``call`` has waited as long as it may."""
        with self._lock:
            now = self._clock.now()
            left = call.since + self.max_wait_s - now
            if left <= 0 or self._closed or self._waiting >= self.max_batch:
                return
            own = call.remaining(now)
            self._gathering = call
        try:
            self._clock.wait(call.signal, left if own is None else min(left, own))
        finally:
            with self._lock:
                self._gathering = None

    def _end_gathering(self) -> None:
        """Wakes the caller that waits for others, if one does."""
        if self._gathering is not None:
            self._gathering.signal.release()
            self._gathering = None

    def _take(self, call: Call) -> List[Call]:
        """The calls of the next batch in the order in which they came, ``call`` the first; none if it has ended."""
        with self._lock:
            now, samples = self._clock.now(), 0
            taken: List[Call] = []
            if call.error is not None or call.is_late(now):
                self._remove(call)
                call.end(now)
                return []
            while self._queue:
                one = self._queue[0]
                if one is not call and one.is_late(now):
                    one.expire(now)
                    one.signal.release()
                elif taken and not self._fits(one, taken[0], samples):
                    break
                else:
                    one.state = RUNNING
                    taken.append(one)
                    samples += one.count
                self._queue.popleft()
                self._waiting -= one.count
            return taken

    def _fits(self, one: Call, first: Call, samples: int) -> bool:
        """Whether ``one`` may be run in the batch of ``first``, which has so many ``samples``."""
        if one.alone or first.alone or samples + one.count > self.max_batch:
            return False
        return self._joiner.is_joinable(one.feeds, first.feeds)

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
        ended, start = self._clock.now(), 0
        with self._lock:
            for one in taken:
                own = rows_of(outputs, slice(start, start + one.count)) if len(taken) > 1 else outputs
                one.answer(own, wake=one is not taken[0])  # the first is this caller's
                start += one.count
        return Ran(start, ended - began, tuple(began - one.since for one in taken))

    def _outputs(self, feeds: Arrays) -> Dict[str, Array]:
        """What the model gives for ``feeds``, at most ``max_batch`` samples of it at a time."""
        count = len(next(iter(feeds.values())))
        if count <= self.max_batch:
            return self.predictor.run(feeds)
        blocks = range(0, count, self.max_batch)
        return joined([self.predictor.run(rows_of(feeds, slice(i, i + self.max_batch))) for i in blocks])

    def _stop_all(self) -> None:
        """Ends the calls that wait; the one whose caller is to run the next batch sees it before it does."""
        for one in list(self._queue):
            one.error = _stopped()
            if one.state == WAITING:
                self._remove(one)
                one.state = DONE
                one.signal.release()

    def _hand_over(self) -> None:
        """Lets the caller at the head of the queue run the next batch, if there is one."""
        if self._queue:
            self._queue[0].state = LEADING
            self._queue[0].signal.release()
        else:
            self._led = False
            self._idle.notify_all()


def _stopped() -> Stopped:
    return Stopped("the queue is closed and takes no more calls; open another MicroBatcher")


def _powers(most: int) -> List[int]:
    """1, 2, 4, … and ``most``."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{name} is {value}; must be {least:g} to {most:g}")
