"""What reaches a terminal: nothing that it obeys, whoever wrote it; and a stream that is closed ends nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dlx_deploy import cli
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime import terminal
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import assemble
from dlx_deploy.runtime.terminal import show, talk
from dlx_deploy.runtime.words import escaped, line, said, shortened

EVIL = "\x1b]0;pwned\x07 \x9b2J \u202eevil \x7f\r\u2028 a\nerror: forged\tend"
"""A window's title, a cleared screen, a turned direction, a return, a line that looks like ours."""


def obeyed(text: str) -> list[str]:
    """The characters in ``text`` that a terminal obeys, but for line ends and tabs."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=())))
@example(EVIL + "\U000e0001 \U0001f600 \ud800")
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    assert not obeyed(escaped(text))
    assert not obeyed(line(text))
    assert "\n" not in line(text)
    assert "\t" not in line(text)
    assert escaped(escaped(text)) == escaped(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
@example({EVIL: ["\U000e0001", EVIL]})
def test_json_is_the_same_json(value: Any) -> None:
    assert json.loads(escaped(to_json(value).decode())) == value


@pytest.mark.parametrize("text", ["plain", "Grüße, 猫は可愛い – € “x” ½", "emoji 😀", "ไทย हिन्दी"])
def test_text_of_people_is_left_alone(text: str) -> None:
    assert escaped(text) == line(text) == text


def test_long_words_are_cut() -> None:
    assert shortened("x" * 900) == "'" + "x" * 199 + "…"
    assert said(ValueError("two\n  lines")) == "two lines"
    assert len(said(ValueError("x" * 900))) == 601


@pytest.fixture
def evil(tmp_path: Path, data: Any, helpers: Any) -> Path:
    """A package in which every word is evil, in a file of an evil name."""
    labels = [f"{EVIL}{i}" for i in range(3)]
    target = {"name": EVIL, "kind": "cpu", "title": EVIL}
    recipe = {"elsewhere": EVIL, "backends": ["onnxruntime-cpu"]}
    meta = helpers.metadata(name=EVIL, version=EVIL, labels=labels, target=target, recipe=recipe)
    meta["precision"] = {"plan": EVIL, "layers": {EVIL: EVIL}}
    meta["engine"] = {"status": "checked", "builder": EVIL, "layers": EVIL}
    path = tmp_path / f"{EVIL.replace('/', '')}.dlx"
    write_archive(path, assemble(helpers.tiny_contents(*data, metadata=meta)))
    return path


@pytest.fixture
def pictures(tmp_path: Path, data: Any) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(data[0][0]).save(folder / f"{EVIL}.png")
    (folder / f"{EVIL}.txt").write_text("no image")
    return folder


def by_package(path: Path, *arguments: str) -> int:
    return main(arguments, str(path))


def by_tool(path: Path, command: str, *arguments: str) -> int:
    return cli.run([command, str(path), *arguments])


@pytest.mark.parametrize("run", [by_package, by_tool])
def test_every_command_prints_names_escaped(
    run: Callable[..., int], evil: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, text = (str(pictures / f"{EVIL}{suffix}") for suffix in (".png", ".txt"))
    lines = {
        ("info",): 8,
        ("selftest",): 1,
        ("bench", "--rounds", "3"): 6,
        ("bench", "--rounds", "3", "--max-p90-ms", "1e-9"): 7,
        ("predict", image, "--top", "3"): 1,
        ("predict", text): 0,
        ("predict", EVIL): 0,
        ("verify", "--data", str(pictures)): 0,
        ("verify", "--data", EVIL): 0,
        ("bench", "--backend", EVIL): 0,
        ("engine", "--cache", EVIL): 0,
    }
    for command, count in lines.items():
        run(evil, *command)
        captured = capsys.readouterr()
        assert not obeyed(captured.out + captured.err), command
        sustained = captured.out.count("\nwithout a pause")  # told where a sensor can be read
        assert len(captured.out.splitlines()) == count + sustained, (command, captured.out)
        assert "\nerror: forged" not in captured.out + captured.err, command
        assert captured.out + captured.err
        if count:
            run(evil, *command, "--json")
            captured = capsys.readouterr()
            assert not obeyed(captured.out + captured.err), command
            shown = json.loads(captured.out)
            assert shown.get("package", shown)["name"] == EVIL


def test_what_was_typed_or_configured_comes_back_escaped(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = evil.with_name("board.toml")
    board.write_text(f'name = "own"\nextends = "rpi5"\ntitle = {json.dumps(EVIL, ensure_ascii=True)}\n')
    for run in (
        lambda: main(["predict", f"--{EVIL}"], str(evil)),
        lambda: main([EVIL], str(evil)),
        lambda: main(["--help"], str(evil)),
        lambda: cli.run([EVIL]),
        lambda: cli.run(["plan", f"--{EVIL}"]),
        lambda: cli.run(["plan", "--config", f"{EVIL}.toml"]),
        lambda: cli.run(["plan", "--set", f"{EVIL}={EVIL}"]),
        lambda: cli.run(["plan", "--set", f"data.path={EVIL}"]),
        lambda: cli.run(["plan", "--target", EVIL]),
        lambda: cli.run(["status", "--store", EVIL]),
        lambda: cli.run(["why", EVIL]),
        lambda: cli.run(["targets", "show", str(board)]),
        lambda: cli.run(["plan", "--target", str(board)]),
        lambda: cli.run(["why", "data", "--target", str(board), "--set", f"data.path={json.dumps(EVIL)}"]),
    ):
        with contextlib.suppress(SystemExit):
            run()
        captured = capsys.readouterr()
        assert captured.out + captured.err
        assert not obeyed(captured.out + captured.err)
        assert "\nerror: forged" not in captured.out + captured.err


def test_bugs_and_logs_are_escaped_too(
    evil: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: Any) -> None:
        logging.getLogger("dlx_deploy").warning(EVIL)
        raise ArithmeticError(EVIL)

    monkeypatch.setattr("dlx_deploy.runtime.commands.actions.inspect", explode)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for run in (by_tool, by_package):
        assert run(evil, "info") == 1
        captured = capsys.readouterr().err
        assert "ArithmeticError" in captured
        assert "this is a bug in dlx-deploy" in captured
        assert not obeyed(captured)


def test_too_little_memory_is_exit_4(dlx: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def full(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("dlx_deploy.runtime.commands.actions.inspect", full)
    for run in (by_tool, by_package):
        assert run(dlx, "info") == 4
        assert "error: this machine has not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/a"),
            "/tmp/a: No space left on device; make room there",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room there; where temporary"),
        (OSError(errno.EROFS, "Read-only file system", "/b"), "/b: Read-only file system; name a folder that can be"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit: ulimit -n"),
    ],
)
def test_a_machine_that_is_full_is_no_bug(
    dlx: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def full(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("dlx_deploy.runtime.commands.actions.inspect", full)
    for run in (by_tool, by_package):
        assert run(dlx, "info") == 4
        assert capsys.readouterr().err.startswith(f"error: {said}")


def test_cells_of_a_table_stay_cells() -> None:
    text = format_table(["name"], [[EVIL]])
    assert not obeyed(text)
    assert len(text.splitlines()) == 3


PROGRAMS = {
    "package": lambda dlx: [sys.executable, str(dlx)],
    "tool": lambda dlx: [sys.executable, "-m", "dlx_deploy.cli"],
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("command", "code"), [(["bench", "--rounds", "30", "--max-p90-ms", "1e-9"], 3), (["engine"], 7)]
)
def test_closed_streams_are_quiet_and_keep_the_code(dlx: Path, program: str, command: list[str], code: int) -> None:
    first = [command[0], str(dlx)] if program == "tool" else [command[0]]
    line_of = " ".join([*map(str, PROGRAMS[program](dlx)), *first, *command[1:]])
    for ending, ended in ((">&-", code), (">&- 2>&- <&-", code), ("| head -c 0", code)):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line_of} {ending}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == ended, (ending, done)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_full_disk_behind_stdout_is_said(dlx: Path, program: str) -> None:
    command = ["inspect", *([str(dlx)] if program == "tool" else [])]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAMS[program](dlx), *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the standard output cannot be written (No space left on device)")
    assert "Exception ignored" not in done.stderr


def test_a_terminal_without_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    show("at most 1 … \x1b")
    assert stream.buffer.getvalue() == b"at most 1 \\u2026 \\u001b\n"
    monkeypatch.setattr(sys, "stderr", None)
    talk("nobody listens")


def test_streams_that_are_missing_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    terminal.ready()
    assert sys.stdin.read() == ""
    assert sys.stdout.write("x") == 1
    assert sys.stderr.write("x") == 1
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()
