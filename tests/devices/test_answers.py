"""A board's answers are held against what was asked; one that cannot be read is said, and hangs nothing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.devices import machine
from dlx_deploy.devices.answers import measured_of, printed_of, progress_of, read_as
from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.devices.sent.timing import MARK
from dlx_deploy.devices.ssh.process import run_process
from dlx_deploy.errors import BoardError, StageFailed
from dlx_deploy.runtime.timing.latency import summarise
from dlx_deploy.runtime.timing.sampling import Measured

from .fake_board import FakeBoard

BOARD = "ssh://user@board"
LOUD = "import sys; [print(n, file=sys.stderr) for n in range(20000)]"
"""More than a pipe holds."""


def measured(*names: str, **changed: object) -> dict[str, Any]:
    one = summarise([1_000_000] * 40)
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asdict(Measured(dict.fromkeys(names, one)))))
    for name in names:
        values["latencies"][name].update(changed)
    return values


def test_times_of_the_models_that_were_asked_for_are_taken() -> None:
    assert measured_of(measured("a", "b"), {"a": 1, "b": 2}, BOARD).latencies["b"].p50_ms == 1.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (measured("a", "b", p50_ms=-1.0), r"it says that a takes -1 ms; must be over 0"),
        (measured("a", "b", p90_ms=0.0), r"it says that a takes 0 ms"),
        (measured("a", "b", block_p50_ms=[1.0, float("inf")]), r"it says that a takes inf ms"),
        (measured("a", "b", p90_lower_ms=float("nan")), r"it says that a takes nan ms"),
        (measured("a", "b", n=0), r"it says that a was timed 0 times"),
        (measured("a", "b", n=41), r"its histogram of a is not one of 41 timings; try again"),
        (measured("a"), r"it timed a, and was asked for a, b; try again"),
        (measured("a", "b", "c\x1b[2J"), r"it timed a, b, c\S*, and was asked for a, b"),
        ({"latencies": {}}, r"it timed nothing, and was asked for a, b"),
        (measured("a", "b", p50_ms="fast"), r"its answer to latencies cannot be read \(.*p50_ms"),
        ([], r"its answer to latencies cannot be read"),
    ],
)
def test_what_is_no_time_is_refused(values: object, said: str) -> None:
    with pytest.raises(BoardError, match=f"^{BOARD}: {said}") as caught:
        measured_of(values, ["a", "b"], BOARD)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("printed", ["", "{", "[1]", "3", '{"a": \x1b}'])
def test_what_a_package_prints_there_must_be_a_table(printed: str) -> None:
    with pytest.raises(BoardError, match=f"^{BOARD}: bench printed .*, and no JSON table .*; try again$") as caught:
        printed_of(printed, BOARD, "bench")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("words", ["", "{", "[1]", '["a", 2, "b"]', '[1e999, 2, "b"]', '[1, 2, "\udcff"]', "x" * 9])
def test_a_line_that_says_nothing_of_progress_is_none(words: str) -> None:
    assert progress_of(MARK + words) is None
    assert progress_of(words) is None
    assert progress_of(f'{MARK}[1, 2, "b"]') == (1.0, 2.0, "b")


def test_an_answer_without_its_fields_is_said() -> None:
    with pytest.raises(BoardError, match=r"its answer to what it is cannot be read \(Object missing .*`machine`"):
        read_as({"texts": {}, "versions": {}}, machine.Machine, BOARD, "what it is")


def test_a_broken_line_of_progress_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"import sys\ndef main(argument):\n    sys.stderr.write({MARK!r} + '[1, 2\\n'); return {{}}\n"
    monkeypatch.setattr("dlx_deploy.devices.board.sent_source", lambda name: source)
    heard: list[str] = []
    with FakeBoard(tmp_path / "board", monkeypatch).connection() as connection:
        assert RemoteBoard(connection, heard.append)._ask("timing", {}) == {}
    assert heard == [f"{MARK}[1, 2"]


def test_who_cannot_hear_hangs_nothing() -> None:
    def full(text: str) -> None:
        raise BrokenPipeError(text)

    with pytest.raises(BrokenPipeError, match=r"^0$"):
        run_process([sys.executable, "-c", LOUD], [], silence_s=20.0, heard=full)


def test_nothing_is_timed_on_a_board_that_is_not_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = tmp_path / "status"
    mode.write_text("pmode:0000\n")
    monkeypatch.setitem(machine.FILES, "power_mode", str(mode))
    with FakeBoard(tmp_path / "board", monkeypatch).connection() as connection:
        board = RemoteBoard(connection)
        assert board.identity["power_mode"] == "pmode:0000"
        other = r"power mode was pmode:0000, is pmode:0002; .* nothing of energy is: run it again"
        with pytest.raises(StageFailed, match=other), board._alone("energy"):
            mode.write_text("pmode:0002\n")  # while it is timed
        mode.unlink()
        gone = r"power mode was pmode:0000, is none; a timing would be kept as one of what it was"
        with pytest.raises(StageFailed, match=gone), board._alone("latencies"):
            pytest.fail("it was begun")
        with board._alone("selftest"):  # times nothing
            pass


def test_another_version_is_another_board(monkeypatch: pytest.MonkeyPatch) -> None:
    was = machine.Machine({"power_mode": ""}, "aarch64", {"python": "3.10.1", "onnxruntime": "1.23.2"})
    now = machine.Machine({"power_mode": ""}, "aarch64", {"python": "3.10.1", "numpy": "2.0"})
    monkeypatch.setattr(machine, "ask_machine", lambda connection: now)
    with pytest.raises(StageFailed, match=r"numpy was none, is 2\.0; onnxruntime was 1\.23\.2, is none; a"):
        machine.check_same(_Named(), was, "bench")  # type: ignore[arg-type]
    machine.check_same(_Named(), now, "bench")  # type: ignore[arg-type]


@pytest.mark.parametrize("versions", [{}, {"python": "three"}, {"python": "3.10.1"}])
def test_what_a_board_is_has_to_be_read(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    named = _Named()
    answer = {"texts": {}, "machine": "aarch64", "versions": versions}
    monkeypatch.setattr(named, "python", lambda source, argument: answer, raising=False)
    with pytest.raises(BoardError, match="what it says of its Python and its files cannot be read; try again"):
        machine.ask_machine(named)  # type: ignore[arg-type]


class _Named:
    name = BOARD
