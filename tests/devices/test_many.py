"""Several boards at once: all are worked on, a few at a time, and one that fails stops no other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices import many as module
from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.many import on_each
from dlx_deploy.errors import BoardError, BoardUnreachable

from .fake_board import FakeBoard

BOARDS = [Board(name=name, address=f"ssh://{name}") for name in "abcde"]


class Connection:
    """A login that says when it is closed."""

    def __init__(self, address: Any) -> None:
        self.name, self.closed = str(address), threading.Event()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SshConnection", Connection)


@pytest.mark.usefixtures("logins")
def test_results_come_in_the_order_of_the_boards_however_they_end() -> None:
    turn = {board.name: threading.Event() for board in BOARDS}
    turn["e"].set()

    def work(board: Board, connection: Any) -> str:
        turn[board.name].wait(10)
        if board.name != "a":
            turn[chr(ord(board.name) - 1)].set()
        if board.name == "c":
            raise BoardError("no room")
        return f"{board.name} by {connection.name}"

    found = on_each(BOARDS, work, lambda board, error: f"{board.name}: {error}", at_once=5)
    assert found == ("a by ssh://a", "b by ssh://b", "c: no room", "d by ssh://d", "e by ssh://e")


@pytest.mark.usefixtures("logins")
def test_no_more_than_so_many_are_at_work() -> None:
    now, most, lock = [0], [0], threading.Lock()
    both = threading.Barrier(2)

    def work(board: Board, connection: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if board.name in "abcd":
            both.wait(10)
        with lock:
            now[0] -= 1

    on_each(BOARDS, work, lambda board, error: None, at_once=2)
    assert most == [2]


@pytest.mark.usefixtures("logins")
def test_a_fault_of_ours_is_raised_once_all_have_ended() -> None:
    done: list[str] = []

    def work(board: Board, connection: Any) -> None:
        if board.name == "a":
            raise ZeroDivisionError
        done.append(board.name)

    with pytest.raises(ZeroDivisionError):
        on_each(BOARDS, work, lambda board, error: None, at_once=1)
    assert done == ["b", "c", "d", "e"]


@pytest.mark.usefixtures("logins")
def test_an_interruption_closes_what_is_open_and_begins_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    started = threading.Event()

    def work(board: Board, connection: Connection) -> None:
        begun.append(connection)
        started.set()
        connection.closed.wait(10)

    class Interrupted(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            if timeout == module.LOOK_S:
                started.wait(10)
                raise KeyboardInterrupt
            super().join(timeout)

    monkeypatch.setattr(module.threading, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_each(BOARDS, work, lambda board, error: None, at_once=1)
    assert [connection.closed.is_set() for connection in begun] == [True]


def test_a_board_that_cannot_be_reached_is_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBoard(tmp_path, monkeypatch).refuses("ssh: connect to host a port 22: Connection refused")
    (found,) = on_each(BOARDS[:1], lambda board, connection: connection.run(["true"]), lambda board, error: error)
    assert isinstance(found, BoardUnreachable)
