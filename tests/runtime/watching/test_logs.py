import json
import os
from pathlib import Path

import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.watching.logs import BURST, BURST_S, SILENT, EventLog, LogFile, open_log


class Lines:
    """What was written, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.now = 1_700_000_000.5
        self.log = EventLog(self.written.append, lambda: self.now)

    @property
    def tables(self) -> list[dict[str, object]]:
        return [json.loads(one) for one in self.written]


def test_a_line_says_when_how_grave_what_and_to_which_request() -> None:
    lines = Lines()
    lines.log.event("ready", {"took_s": 0.25}, request="r-1")
    assert lines.tables == [
        {"time": "2023-11-14T22:13:20.500Z", "level": "info", "event": "ready", "request": "r-1", "took_s": 0.25}
    ]


def test_no_value_breaks_a_line_or_moves_a_terminal() -> None:
    lines = Lines()
    lines.log.event("ready", {"model": "a\nb\x1b[2J\u2028\x7f", "far": float("nan")}, request="\ud800\r")
    (line,) = lines.written
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert all(byte >= 32 for byte in line[:-1])
    assert b"\x7f" not in line
    assert lines.tables[0]["far"] == "nan"


def test_a_long_value_is_cut() -> None:
    lines = Lines()
    lines.log.event("ready", {"model": "x" * 10_000})
    assert len(lines.written[0]) < 500


def test_repeated_errors_are_bounded_and_those_left_out_are_counted() -> None:
    lines = Lines()
    for _ in range(BURST + 7):
        lines.log.event("error", {"kind": "InputError"}, "warning")
    lines.log.event("error", {"kind": "PackageError"}, "error")  # another kind is not hidden by it
    assert len(lines.written) == BURST + 1
    lines.now += BURST_S
    lines.log.event("error", {"kind": "InputError"}, "warning")
    lines.log.event("error", {"kind": "InputError"}, "warning")
    assert [one.get("suppressed") for one in lines.tables[-2:]] == [7, None]


def test_a_clock_that_is_set_back_silences_no_error() -> None:
    lines = Lines()
    for _ in range(BURST + 1):
        lines.log.event("error", {"kind": "InputError"}, "warning")
    lines.now -= 1e6
    lines.log.event("error", {"kind": "InputError"}, "warning")
    assert lines.tables[-1]["suppressed"] == 1


def test_a_file_that_was_moved_away_is_made_anew_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    log = open_log(path)
    log.event("one")
    path.rename(tmp_path / "log.json.1")
    log.event("two")
    log.event("three")
    assert [json.loads(one)["event"] for one in path.read_text().splitlines()] == ["two", "three"]
    assert json.loads((tmp_path / "log.json.1").read_text())["event"] == "one"
    assert path.stat().st_mode & 0o007 == 0


def test_a_log_that_cannot_be_written_is_counted_and_stops_nobody(tmp_path: Path) -> None:
    def full(line: bytes) -> None:
        raise OSError(28, "No space left on device")

    log = EventLog(full)
    log.event("one")
    log.event("two")
    assert log.lost == 2


def test_a_log_whose_folder_is_gone_goes_on_once_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "log")
    log.event("one")
    folder.rename(tmp_path / "old")
    log.event("two")
    folder.mkdir()
    log.event("three")
    assert (log.lost, json.loads((folder / "log").read_text())["event"]) == (1, "three")


def test_a_line_that_was_written_in_part_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, write = open_log(tmp_path / "log"), os.write
    monkeypatch.setattr("os.write", lambda file, data: write(file, data[:20]))
    log.event("one")
    monkeypatch.setattr("os.write", write)
    log.event("two")
    assert log.lost == 1
    assert json.loads((tmp_path / "log").read_text().splitlines()[1])["event"] == "two"


def test_a_pipe_that_nobody_reads_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="which cannot be written"):
        LogFile(tmp_path / "pipe")


def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--log-json is '.*/no/log', which cannot be written \(No such file"):
        LogFile(os.path.join(tmp_path, "no", "log"))


def test_stderr_is_the_dash(capsys: pytest.CaptureFixture[str]) -> None:
    open_log("-").event("ready")
    SILENT.event("ready")
    said = capsys.readouterr()
    assert json.loads(said.err)["event"] == "ready"
    assert said.out == ""
