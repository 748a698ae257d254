"""The measuring lock of a board, held from here, by real processes behind the stand-in for ssh."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices import measuring as module
from dlx_deploy.devices.measuring import Manners, PowerModes, measuring, who_asks
from dlx_deploy.errors import BoardError

from .fake_board import FakeBoard


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """One whose agent keeps its lock below the test's folder, and whose power modes are an Orin Nano's."""
    locks, root = tmp_path / "locks", tmp_path / "root"
    locks.mkdir()
    locks.chmod(0o1777)
    (root / "etc").mkdir(parents=True)
    (root / "etc/nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n")
    (root / "var/lib/nvpmodel").mkdir(parents=True)
    (root / "var/lib/nvpmodel/status").write_text("pmode:0001")
    rooms = f"measuring'].FOLDERS = ({str(locks)!r},)", f"facts'].ROOT = {str(root)!r}"
    source = "\n".join([module.agent_source(), *(f"sys.modules['dlx_agent.{room}" for room in rooms)])
    monkeypatch.setattr(module, "agent_source", lambda: source)
    return FakeBoard(tmp_path / "board", monkeypatch)


def test_one_measures_at_a_time_and_the_second_hears_who(board: FakeBoard) -> None:
    said: list[str] = []
    with board.connection() as first, board.connection() as second:
        with measuring(first, "bench of digits", Manners(power_mode="15W"), said.append) as modes:
            assert modes == PowerModes("7W", {"15W": 0, "7W": 1})
            refused = (
                rf"{re.escape(who_asks())} measures on it \(bench of digits\), since .*; wait for them with --wait"
            )
            with pytest.raises(BoardError, match=refused), measuring(second, "bench of others"):
                raise AssertionError("it is locked")
        with measuring(second, "bench of others"):
            pass
    assert said == [
        "warning: ssh://user@board: it is in power mode 7W, not 15W: what is measured is of 7W; set it there with: "
        "sudo nvpmodel -m 0"
    ]


def test_who_steals_it_is_told_and_so_is_the_first(board: FakeBoard) -> None:
    first_said: list[str] = []
    said: list[str] = []
    with (
        board.connection() as first,
        board.connection() as second,
        measuring(first, "bench", say=first_said.append),
        measuring(second, "bench", Manners(steal=True), said.append),
    ):
        pass
    assert "what they run may still go on beside this" in said[-1]
    assert "somebody took the measuring lock meanwhile" in first_said[-1]


def test_who_waits_keeps_what_else_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEANWHILE_S", 0.0)
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    kept = threading.Event()

    class Waiting:
        name = "ssh://board"

        def python(self, source: str, argument: Any, **options: Any) -> Any:
            if argument["command"] == "measure":
                kept.wait(10)
                options["heard"](module.MARK + '{"holds": 7}')
            return {"ok": {"ended": "released", "released": True}}

    with measuring(Waiting(), "bench", meanwhile=kept.set):  # type: ignore[arg-type]
        assert kept.is_set()


class Silent:
    """A connection whose board says what it is told to."""

    name = "ssh://board"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def python(self, source: str, argument: object, **options: Any) -> Any:
        options["heard"]("Welcome!")
        options["heard"](module.MARK + "{")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("ended", [BoardError("it broke off"), {"ok": {"ended": "gone"}}, {"ok": {"ended": "stolen"}}])
def test_a_lock_that_was_lost_meanwhile_is_told(ended: Any) -> None:
    """As where a holder is killed there, or is silent for too long: the bench goes on, and somebody else's may too."""

    class Losing(Silent):
        def python(self, source: str, argument: Any, **options: Any) -> Any:
            if argument["command"] == "measure":
                options["heard"](module.MARK + '{"holds": 7}')
            return super().python(source, argument, **options)

    said: list[str] = []
    with measuring(Losing(ended), "bench", say=said.append):  # type: ignore[arg-type]
        pass
    (warning,) = said
    assert warning.startswith("warning: ssh://board: ")
    assert ("was lost meanwhile" in warning) == (ended != {"ok": {"ended": "stolen"}})
    assert warning.endswith("what was measured may have had company: measure again")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"fault": {"kind": "system", "text": "no\x1b folder"}}, r"no\\u001b folder$"),
        ({"ok": {"ended": "gone"}}, "the connection ended while the measuring lock was asked for; try again"),
        ({}, r"answers \{\} to measure"),
        (BoardError("it has been silent"), "it has been silent"),
    ],
)
def test_what_goes_wrong_is_said(answer: Any, text: str) -> None:
    with pytest.raises(BoardError, match=text), measuring(Silent(answer), "bench"):  # type: ignore[arg-type]
        raise AssertionError("nothing is held")


def test_a_power_mode_that_is_not_there_is_told_with_those_that_are() -> None:
    modes = PowerModes("7W", {"15W": 0, "7W": 1})
    assert modes.warning("25W").endswith("the modes that it has: 15W, 7W")
    assert modes.warning("7W") == modes.warning("") == ""
    assert "no power mode that could be read, and 7W is asked for" in PowerModes().warning("7W")
