"""Callers in a line, first come, first served: the one at its head runs a batch, its own call and those behind it.

As many batches run at once as there are workers, and one more is never formed before one of them has ended. There is no
thread that waits. A call is in the line (``WAITING``), its caller is to run the next batch (``LEADING``),
it is in the batch that runs (``RUNNING``), or it has ended (``DONE``).
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Sequence

from ..errors import Busy, Stopped
from ..tasks.arrays import Arrays, rows_of
from ..untyped import Array
from .calls import DONE, LEADING, RUNNING, WAITING, Call, Clock

__all__ = ["Line"]


class Line:
    """At most ``capacity`` samples wait in it. A batch has at most ``max_batch``, all of them ``is_joinable``, and
    ``workers`` of them run at once; while fewer do, a call waits ``max_wait_s`` for others. All methods may be called
    from any thread."""

    def __init__(
        self,
        max_batch: int,
        max_wait_s: float,
        capacity: int,
        is_joinable: Callable[[Arrays, Arrays], bool],
        clock: Clock,
        workers: int = 1,
    ) -> None:
        self._workers = workers
        self._max_batch, self._max_wait_s, self._capacity = max_batch, max_wait_s, capacity
        self._is_joinable, self._clock = is_joinable, clock
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: Deque[Call] = deque()
        self._waiting = 0  # samples in the queue
        self._forming: Optional[Call] = None  # whose caller is to run the next batch
        self._gathering: Optional[Call] = None  # whose caller waits for others before it runs
        # The batch that the caller of each of these runs; kept here, as Ctrl-C may hit who runs it anywhere.
        self._batches: Dict[Call, List[Call]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many samples wait now."""
        return self._waiting

    def enter(self, call: Call) -> bool:
        """Whether ``call``, now in the queue, is to be run by its caller at once.

        Raises:
            Busy: there is no room, or the queue is closed.
        """
        with self._lock:
            if self._closed:
                raise _stopped()
            leads = self._forming is None and len(self._batches) < self._workers
            if not leads and self._waiting + call.count > self._capacity:
                raise Busy(f"{self._waiting} samples wait, and at most {self._capacity} may; try again later")
            self._queue.append(call)
            self._waiting += call.count
            if leads:
                self._forming, call.state = call, LEADING
            elif self._waiting >= self._max_batch:
                self._end_gathering()
            return leads

    def is_woken_to_lead(self, call: Call) -> bool:
        """Whether its caller, which waits here, is to run the next batch; if not, ``call`` has ended."""
        try:
            self._clock.wait(call.signal, call.remaining(self._clock.now()))
            with self._lock:
                if call.state == LEADING:
                    # Handed over just as its time ended: its signal is held again, or nobody could wake it later.
                    call.signal.acquire(blocking=False)
                    return True
                self._give_up(call)
                return False
        except BaseException:  # Ctrl-C in this thread must not leave the others without one that runs them
            with self._lock:
                self._give_up(call)
                self._end_turn(call)
            raise

    def take(self, call: Call) -> List[Call]:
        """The calls of the next batch in the order in which they came, ``call`` the first; none if its time is over."""
        self._gather(call)
        with self._lock:
            now = self._clock.now()
            if call.error is not None or call.is_late(now):
                self._remove(call)
                call.end(now)
                return []
            self._remove(call)
            call.state, samples = RUNNING, call.count
            taken = self._batches[call] = [call]
            while self._queue:
                one = self._queue[0]
                if one.is_late(now):
                    one.expire(now)
                    one.signal.release()
                elif not self._fits(one, call, samples):
                    break
                else:
                    one.state = RUNNING
                    taken.append(one)
                    samples += one.count
                self._queue.popleft()
                self._waiting -= one.count
            self._end_turn(call)  # where more workers are free, the next batch need not wait for this one
            return list(taken)

    def leave(self, call: Call) -> None:
        """Ends the turn of the caller of ``call``, by whatever; the one at the head of the line runs the next batch."""
        with self._lock:
            if call.state == LEADING:  # interrupted before it was taken
                self._give_up(call)
            # What is not answered goes back to where it was: this caller was interrupted, or it has to run alone.
            back = [one for one in self._batches.pop(call, ()) if one is not call and one.state == RUNNING]
            for one in reversed(back):
                one.state = WAITING
                self._queue.appendleft(one)
                self._waiting += one.count
            self._end_turn(call)

    def answer(self, taken: Sequence[Call], outputs: Dict[str, Array]) -> None:
        """Gives each of ``taken`` its rows of ``outputs``; the first is this caller's own."""
        start = 0
        with self._lock:
            for one in taken:
                own = rows_of(outputs, slice(start, start + one.count)) if len(taken) > 1 else outputs
                one.answer(own, wake=one is not taken[0])
                start += one.count

    def close(self, drain: bool = True) -> None:
        """As ``MicroBatcher.close``."""
        with self._lock:
            self._closed = True
            if not drain:
                self._stop_all()
            self._end_gathering()
            while self._forming is not None or self._batches:
                self._idle.wait()

    def _give_up(self, call: Call) -> None:
        """Ends ``call`` if it has not ended; what runs already runs on, and nobody waits for it."""
        if call.state in (WAITING, LEADING):
            self._remove(call)
        if call.state != DONE:
            call.expire(self._clock.now())

    def _remove(self, call: Call) -> None:
        self._queue.remove(call)
        self._waiting -= call.count

    def _gather(self, call: Call) -> None:
        """Waits for others until the batch is full or ``call`` has waited as long as it may."""
        with self._lock:
            now = self._clock.now()
            left = call.since + self._max_wait_s - now
            if left <= 0 or self._closed or self._waiting >= self._max_batch:
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

    def _fits(self, one: Call, first: Call, samples: int) -> bool:
        """Whether ``one`` may be run in the batch of ``first``, which has so many ``samples``."""
        if one.alone or first.alone or samples + one.count > self._max_batch:
            return False
        return self._is_joinable(one.feeds, first.feeds)

    def _stop_all(self) -> None:
        """Ends the calls that wait; the one whose caller is to run the next batch sees it before it does."""
        for one in list(self._queue):
            one.error = _stopped()
            if one.state == WAITING:
                self._remove(one)
                one.state = DONE
                one.signal.release()

    def _end_turn(self, call: Call) -> None:
        """Lets the caller at the head of the queue run the next batch, if there is one and a worker is free.

        ``call``: whose caller forms no batch any more, if it did.
        """
        if self._forming is call:
            self._forming = None
        if self._forming is None and self._queue and len(self._batches) < self._workers:
            self._forming = self._queue[0]
            self._forming.state = LEADING
            self._forming.signal.release()
        elif self._forming is None and not self._batches:
            self._idle.notify_all()


def _stopped() -> Stopped:
    return Stopped("the queue is closed and takes no more calls; open another MicroBatcher")
