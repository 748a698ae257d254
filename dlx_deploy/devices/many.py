"""The same work on several boards, some at once: what goes wrong on one stops no other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.openssh import SshConnection
from dlx_deploy.errors import DlxError

__all__ = ["AT_ONCE", "on_each"]

T = TypeVar("T")
AT_ONCE = 8
"""Boards that are worked on side by side: a login is a process of ssh here, and a network has one bandwidth."""
LOOK_S, LEAVE_S = 0.2, 5.0


def on_each(
    boards: Sequence[Board],
    work: Callable[[Board, SshConnection], T],
    failed: Callable[[Board, DlxError], T],
    at_once: int = AT_ONCE,
) -> tuple[T, ...]:
    """What ``work`` gives on each board, in their order; of one where it raises an error of ours, what ``failed`` makes
    of it. Each has a connection of its own, which is closed at the end.

    Raises:
        KeyboardInterrupt: from outside; connections are closed, which ends what runs over them.
        Exception: what ``work`` raised that is none of ours, once all have ended.
    """
    crew = _Crew(boards, work, failed)
    threads = [threading.Thread(target=crew.work, daemon=True) for _ in range(min(at_once, len(boards)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK_S)  # in pieces: a join without an end cannot be interrupted everywhere
    except BaseException:
        crew.leave()
        for thread in threads:
            thread.join(LEAVE_S)
        raise
    return crew.results()


class _Crew(Generic[T]):
    """Threads that take one board after another from a queue."""

    def __init__(
        self,
        boards: Sequence[Board],
        work: Callable[[Board, SshConnection], T],
        failed: Callable[[Board, DlxError], T],
    ) -> None:
        self._boards, self._work, self._failed = boards, work, failed
        self._left: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(boards)):
            self._left.put(place)
        self._found: dict[int, T] = {}
        self._errors: list[Exception] = []
        self._open: dict[int, SshConnection] = {}
        self._leaving = False

    def work(self) -> None:
        """Take boards until there is none."""
        while not self._leaving:
            try:
                place = self._left.get_nowait()
            except queue.Empty:
                return
            try:
                self._found[place] = self._one(place)
            except Exception as e:  # raised again by who waits for the threads
                self._errors.append(e)

    def leave(self) -> None:
        """Take no more, and end what runs."""
        self._leaving = True
        for connection in tuple(self._open.values()):
            connection.close()

    def results(self) -> tuple[T, ...]:
        """What came of each."""
        if self._errors:
            raise self._errors[0]
        return tuple(self._found[place] for place in range(len(self._boards)))

    def _one(self, place: int) -> T:
        board = self._boards[place]
        try:
            with SshConnection(parse_address(board.address)) as connection:
                self._open[place] = connection
                return self._work(board, connection)
        except DlxError as e:
            return self._failed(board, e)
        finally:
            self._open.pop(place, None)
