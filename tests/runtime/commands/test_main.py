from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy import cli
from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.commands.main import main, view_of
from dlx_deploy.runtime.commands.options import make_parser
from dlx_deploy.runtime.commands.plain import plain_arguments
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(dlx: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str, path: Path = dlx) -> tuple[int, str, str]:
        try:
            code = main(argv, str(path))
        except SystemExit as e:  # argparse: help is 0, wrong usage is 2
            code = int(e.code or 0)
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def cat(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(data[0][0]).save(path)
    return path


@pytest.fixture
def damaged(tmp_path: Path, data: Any, helpers: Any) -> Path:
    path = tmp_path / "damaged.dlx"
    write_archive(path, assemble(helpers.tiny_contents(*data, model=helpers.tiny_model(shift=1))))
    return path


@pytest.fixture
def split(tmp_path: Path, data: Any, helpers: Any) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"schema": 1, "classes": helpers.labels}))
    np.save(folder / "test.images.npy", data[0])
    np.save(folder / "test.labels.npy", data[1])
    return folder


def test_predict(run: Run, cat: Path) -> None:
    code, out, err = run("predict", str(cat), "--top", "2")
    assert (code, err) == (0, "")
    assert out.startswith(f"{cat}\tcat 0.")
    code, out, _ = run("predict", str(cat), "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["top"][0]["label"] == "cat"


def test_selftest(run: Run, damaged: Path) -> None:
    assert run("selftest")[0] == 0
    code, out, err = run("selftest", path=damaged)
    assert (code, out) == (5, "")
    assert err.startswith("error: golden image 0 differs")


def test_bench(run: Run) -> None:
    assert run("bench", "--rounds", "30", "--batch", "2", "--threads", "1")[0] == 0
    code, out, err = run("bench", "--rounds", "40", "--max-p90-ms", "0.000001", "--json")
    assert (code, json.loads(out)["verdict"]) == (3, "fail")
    assert "missed" in err
    assert run("bench", "--rounds", "5", "--max-p90-ms", "100000")[0] == 6
    assert json.loads(run("bench", "--rounds", "5", "--json")[1])["inputs"] == 0


def test_bench_with_streams_batches_and_cold_starts(run: Run) -> None:
    code, out, _ = run("bench", "--rounds", "20", "--streams", "2", "--cold-starts", "1", "--threads", "1")
    assert code == 0
    assert "2 streams at once" in out
    assert "cold start to the first answer: median" in out
    code, out, _ = run("bench", "--rounds", "5", "--batch", "1,2", "--json")
    data = json.loads(out)
    assert [one["batch"] for one in data["throughput"]] == [1, 2]
    assert (data["batch"], data["streams"], data["cold_start"]) == (1, 1, None)
    assert set(data["phases"]) == {"pre_ms", "inference_ms", "post_ms"}
    assert data["checked"] == 17
    assert [one["percentile"] for one in data["latency"]["percentiles"]] == [50, 90, 99]


def test_bench_of_files(run: Run, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(path)
    code, out, _ = run("bench", *map(str, paths), "--rounds", "5")
    assert (code, "each read from what was given (2 images in turn): p50" in out) == (0, True)
    assert json.loads(run("bench", str(paths[0]), "--rounds", "5", "--json")[1])["inputs"] == 1
    assert run("bench", "none.png")[0] == 2
    assert run("bench", "none.png")[2] == "error: none.png: no such image file\n"


def test_verify(run: Run, split: Path, damaged: Path) -> None:
    code, out, err = run("verify", "--data", str(split))
    assert (code, err) == (0, "")
    assert "budget 2.00 points: met" in out
    code, out, err = run("verify", "--data", str(split), path=damaged)
    assert code == 3
    assert "budget 2.00 points: missed" in out
    assert err.startswith("error: accuracy drop 100.00 points")
    code, out, _ = run("verify", "--data", str(split), "--max-drop", "0.001", "--confidence", "0.99", "--json")
    assert (code, json.loads(out)["verdict"]["verdict"]) == (6, "undecided")


def test_verify_names_what_the_package_does_not_know(run: Run, tmp_path: Path, data: Any, helpers: Any) -> None:
    images, labels = data
    new = tmp_path / "new"
    for i in range(5):
        (new / helpers.labels[labels[i]]).mkdir(parents=True, exist_ok=True)
        pixels = images[i] ^ 1 if i else images[i]
        Image.fromarray(pixels).save(new / helpers.labels[labels[i]] / f"{i}.png")
    names = sorted(str(path) for path in new.rglob("*.png") if path.name != "0.png")
    code, out, err = run("verify", "--data", str(new))
    assert (code, out) == (2, "")
    first = f"error: 4 of 5 images (first: {', '.join(names[:3])}, …) are not in the package's reference table"
    assert err.startswith(first)
    assert "--teacher model.onnx" in err


def test_verify_counts_what_it_passes_over(run: Run, split: Path, data: Any) -> None:
    assert json.loads(run("verify", "--data", str(split), "--json")[1])["passed_over"] == 0
    np.save(split / "test.images.npy", np.concatenate([data[0], data[0][:2] ^ 1]))
    np.save(split / "test.labels.npy", np.concatenate([data[1], data[1][:2]]))
    code, out, err = run("verify", "--data", str(split))
    assert (code, err) == (0, "")
    assert "passed over: 2 of 302 images (first: number 300, number 301) are not of the build's test split" in out
    assert json.loads(run("verify", "--data", str(split), "--json")[1])["passed_over"] == 2


COMMANDS = ["predict", "selftest", "bench", "verify", "serve", "engine", "inspect"]


def test_the_package_and_the_tool_have_the_same_commands(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run("--help")[1]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("    ")] == COMMANDS
    assert cli.run(["--help"]) == 0
    of_tool = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in of_tool
    for older in ("info", "run"):
        assert f" {older} " not in shown + of_tool


def test_older_names_of_commands_work(run: Run, cat: Path, dlx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for older, name, more in (("info", "inspect", []), ("run", "predict", [str(cat)])):
        expected = run(name, *more)
        assert expected[0] == 0
        assert run(older, *more) == expected
        assert view_of([older, *more], str(dlx)).data == view_of([name, *more], str(dlx)).data
        for command in (older, name):
            assert cli.run([command, str(dlx), *more]) == 0
            assert capsys.readouterr().out == expected[1]
    assert cli.run(["inspect", str(dlx), "--selftest"]) == 0
    assert capsys.readouterr().out == run("selftest")[1]


def test_what_is_no_command_does_not_end_the_process(dlx: Path) -> None:
    with pytest.raises(
        InputError, match=r"'bench --round=x' is no command that a package has; see: .*tiny\.dlx --help"
    ):
        view_of(["bench", "--round=x"], str(dlx))


def test_inspect_and_no_command(run: Run) -> None:
    code, out, _ = run("inspect")
    assert (code, out.splitlines()[0]) == (0, "tiny 1.2.3 for any x86-64")
    code, out, _ = run("inspect", "--json")
    assert json.loads(out)["name"] == "tiny"
    code, out, _ = run()
    assert code == 0
    assert out.startswith("tiny 1.2.3 for any x86-64")
    assert "usage: python tiny.dlx" in out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["predict", "none.png"], 2, "none.png: no such image file"),
        (["verify", "--data", "none"], 2, "none: no such folder"),
        (["predict", "a.png", "--threads", "-1"], 2, "threads is -1"),
        (["selftest", "--threads", "1000000"], 2, "threads is 1000000"),
        (["bench", "--rounds", "0"], 2, "rounds is 0"),
        (["predict"], 2, "required: INPUT, images (or -: stdin), or --file, one a line; nothing is there"),
        (["bench", "--batch", "1,x"], 2, "batch is '1,x'; must be a whole number, or several, as 1,8,32"),
        (
            ["bench", "--batch", "1,2", "--streams", "2"],
            2,
            "several batch sizes are measured one query",
        ),
        (["bench", "--streams", "0"], 2, "--streams is 0; must be 1 to 256"),
        (["bench", "--cold-starts", "-1"], 2, "--cold-starts is -1; must be 0 to 1000"),
        (["bench", "--batch", "2000000"], 2, "batch is 2000000; must be 1 or more, and at most 65536"),
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
    ],
)
def test_refusals(run: Run, argv: list[str], code: int, message: str) -> None:
    exit_code, out, err = run(*argv)
    assert (exit_code, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_missing_libraries_are_exit_4(run: Run, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "PIL", None)
        assert run("predict", str(cat))[0] == 4
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = run("selftest")
    assert code == 4
    assert "pip install onnxruntime" in err
    assert run("inspect")[0] == 0


def test_broken_package(run: Run, tmp_path: Path, dlx: Path) -> None:
    short = tmp_path / "short.dlx"
    short.write_bytes(dlx.read_bytes()[:5000])
    code, out, err = run("inspect", path=short)
    assert (code, out) == (2, "")
    assert "short.dlx: not a readable zip" in err


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "selftest", interrupt)
    assert run("selftest")[:2] == (130, "")


def test_package_named_by_the_first_argument(dlx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(dlx), "info"]) == 0
    assert capsys.readouterr().out.startswith("tiny 1.2.3")


def test_reader_that_goes_away(dlx: Path) -> None:
    """Like ``python tiny.dlx info | head -0``: no traceback, and the code of the work that was done."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, str(dlx), "info"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_that_comes_first_has_the_parser_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Making the others takes milliseconds of a start; what is no command is told them all."""

    def choices(*argv: str) -> list[str]:
        (commands,) = [one.choices for one in make_parser("x.dlx", argv)._actions if one.dest == "command"]
        return list(commands or ())

    assert choices("predict", "cat.jpg") == ["predict"]
    assert choices("bench", "predict") == ["predict", "bench"]
    assert len(choices("--help", "predict")) == len(choices()) == 9
    with pytest.raises(SystemExit):
        make_parser("x.dlx", ["wrong", "predict"]).parse_args(["wrong", "predict"])
    assert "invalid choice: 'wrong'" in capsys.readouterr().err


@pytest.mark.parametrize(("columns", "most"), [("40", 40), ("90", 90), ("none", 60)])
def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, most: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("os.get_terminal_size", lambda fd: os.terminal_size((60, 24)))
    assert make_parser("x.dlx", ["predict"])._get_formatter()._width == most - 2


@pytest.mark.parametrize("argv", [["predict"], ["predict", "a.png"], ["predict", "predict", "", "Is this it?", "run"]])
def test_a_plain_command_line_is_what_the_parser_makes_of_it(argv: list[str]) -> None:
    plain = plain_arguments("x.dlx", argv)
    assert plain is not None
    assert vars(plain) == vars(make_parser("x.dlx", argv).parse_args(argv))
    assert plain_arguments(None, argv) is None


@pytest.mark.parametrize(
    "argv", [[], ["a.png"], ["run", "a.png"], ["predict", "--json"], ["predict", "-"], ["predict", "a", "-h"]]
)
def test_all_other_command_lines_are_the_parsers(argv: list[str]) -> None:
    assert plain_arguments("x.dlx", argv) is None
