"""What a command line names is what is classified: never the name of a file in the place of what is in it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlx_deploy import cli
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble

Run = Callable[..., int]


@pytest.fixture(params=["package", "tool"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dlx: Path) -> Run:
    """``predict`` of a text package or an image package, by either command line, in a folder with some files."""
    from ..tasks.test_texts import contents  # type: ignore[import-not-found]

    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "texts.dlx", assemble(contents()))
    (tmp_path / "images.dlx").write_bytes(dlx.read_bytes())
    (tmp_path / "cat.txt").write_text("the cat\nelm oak\n")
    (tmp_path / "elm").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def call(package: str, *arguments: str) -> int:
        if request.param == "tool":
            return cli.run(["run", package, *arguments])
        return main(["predict", *arguments], package)

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cat.txt"],
            "'cat.txt' is a file here, and the package classifies texts, not names; give its texts, one a lin",
        ),
        (["the dog", "cat.txt"], "'cat.txt' is a file here"),
        (["./cat.txt"], "'./cat.txt' is a file here"),
        (["elm"], "'elm' is a folder here, and the package classifies texts"),
        (["pipe"], "'pipe' is a file here"),
        (["dog.txt"], "'dog.txt' looks like a file, and there is none of this name; give its texts"),
        (["dog.JPG"], "'dog.JPG' looks like a file"),
        (["--file", "dog.txt"], "dog.txt: cannot be read (No such file or directory)"),
        (["--file", "elm"], "elm: cannot be read (Is a directory)"),
        (["--file", "pipe"], "pipe: cannot be read (a pipe; must be a plain file)"),
        (["--file", "texts.dlx"], "texts.dlx: is not UTF-8"),
        (["--file", os.devnull], "/dev/null: cannot be read (a device; must be a plain file)"),
        (
            ["--file", "cat.txt", "the dog"],
            "required: INPUT, texts (or -: stdin), or --file, one a line; both are",
        ),
        ([], "required: INPUT, texts (or -: stdin), or --file, one a line; nothing is there"),
    ],
)
def test_the_name_of_a_file_is_no_text(run: Run, capsys: Any, arguments: list[str], message: str) -> None:
    assert run("texts.dlx", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {message}" in captured.err


def test_the_lines_of_a_file_are_texts(run: Run, capsys: Any) -> None:
    assert run("texts.dlx", "--file", "cat.txt", "--json") == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert [(row["text"], row["top"][0]["label"]) for row in predictions] == [
        ("the cat", "animal"),
        ("elm oak", "plant"),
    ]
    assert run("texts.dlx", "oak. elm", "the cat.txt was") == 0
    capsys.readouterr()
    Path("list.txt").write_bytes("\ufeffthe\u2028cat\r\nelm\x0coak".encode())
    assert run("texts.dlx", "--file", "list.txt", "--json") == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert [row["text"] for row in predictions] == ["the\u2028cat", "elm\x0coak"]


def test_the_words_themselves_can_be_given_on_stdin(run: Run, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\nelm\n"))
    assert run("texts.dlx", "-") == 0
    assert [row.split("\t")[0] for row in capsys.readouterr().out.splitlines()] == ["cat", "elm"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("texts.dlx", "-") == 2
    assert "the standard input holds nothing; give one input a line" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert run("texts.dlx", "-") == 2
    assert "the standard input is not UTF-8" in capsys.readouterr().err


def test_a_text_is_no_image(run: Run, capsys: Any, data: Any) -> None:
    assert run("images.dlx", "a nice cat") == 2
    assert "a nice cat: no such image file; the package classifies images: give their paths" in capsys.readouterr().err
    assert run("images.dlx", "cat.txt") == 2
    assert "cat.txt: cannot be decoded as an image" in capsys.readouterr().err
    Image.fromarray(data[0][0]).save("cat.png")
    Path("list.txt").write_text("cat.png\ncat.png\n")
    assert run("images.dlx", "--file", "list.txt") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
