"""Environments of unpacked wheels: the agent, in this process, on a folder; wheels are made here."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import wheels as module
from dlx_deploy.devices.agent.main import answer

FILES = {
    "thing/__init__.py": b"ANSWER = 42\n",
    "thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
    "thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def wheel(files: Mapping[str, bytes] = FILES, more: Mapping[str, bytes] | None = None, record: str = "") -> bytes:
    """A wheel of ``thing``; ``more``: what its list of files has not; ``record``: another list."""
    made = io.BytesIO()
    rows = [f"{name},sha256={digest64(data)},{len(data)}" for name, data in files.items()]
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in {**files, **(more or {})}.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of no day: the same bytes whenever
        archive.writestr(
            zipfile.ZipInfo("thing-1.0.dist-info/RECORD"), record or "\n".join([*rows, "thing-1.0.dist-info/RECORD,,"])
        )
    return made.getvalue()


def digest64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Board:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.ask("lock", who="ann", purpose="pushes", since="12:00", owner={})

    def ask(self, command: str, **fields: Any) -> Any:
        said = answer({"command": command, "path": str(self.root), "token": "t", **fields})
        return said["ok"] if "ok" in said else said["fault"]

    def brings(self, *wheels: bytes) -> Any:
        """The answer to wheels that are sent where they are asked for."""
        digests = {hashlib.sha256(data).hexdigest(): data for data in wheels}
        said = self.ask("environment", wheels=list(digests))
        for digest, path in said.get("lacks", {}).items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(digests[digest])
        return self.ask("environment", wheels=list(digests)) if said.get("lacks") else said


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_wheels_become_an_environment_of_the_board_s_python(board: Board) -> None:
    made = board.brings(wheel())
    assert made["made"]
    used = board.ask("use-environment", id=made["id"])
    code = (
        "import sys, thing; from importlib.metadata import version; print(thing.ANSWER, version('thing'), sys.prefix)"
    )
    said = subprocess.check_output([used["python"], "-c", code], text=True).split()
    assert said[:2] == ["42", "1.0"]
    assert os.path.realpath(said[2]) == str(board.root / "venvs" / made["id"])
    assert not (board.root / "incoming" / "wheels").exists()
    assert board.brings(wheel())["made"] is False, "the same wheels are not sent and not unpacked again"


def test_the_environment_before_is_kept_and_older_ones_are_not(board: Board) -> None:
    made = []
    for number in range(3):
        made.append(board.brings(wheel({**FILES, "thing/n.py": b"%d" % number}))["id"])
        used = board.ask("use-environment", id=made[-1])
    assert len({*made}) == 3
    assert used["before"] == made[1]
    assert {path.name for path in (board.root / "venvs").iterdir()} == {made[1], made[2]}
    assert os.readlink(board.root / "venv") == f"venvs/{made[2]}"


def test_what_pushes_that_failed_have_left_does_not_pile_up(board: Board) -> None:
    venvs, made = board.root / "venvs", []
    for number in range(4):
        made.append(board.brings(wheel({**FILES, "thing/n.py": b"%d" % number}))["id"])
        os.utime(venvs / made[-1], (number, number))
        if number == 0:
            board.ask("use-environment", id=made[0])
        (venvs / f".new-{number}").mkdir()
    assert {path.name for path in venvs.iterdir()} == {made[0], made[2], made[3], ".new-3"}


def test_files_of_data_folders_go_where_they_belong_and_programs_nowhere(board: Board) -> None:
    files = {
        **FILES,
        "thing-1.0.data/purelib/pure.py": b"",
        "thing-1.0.data/data/share/x": b"x",
        "thing-1.0.data/scripts/run": b"#!python\n",
    }
    folder = Path(board.brings(wheel(files))["python"]).parents[1]
    (site,) = folder.glob("lib/python*/site-packages")
    assert (site / "pure.py").is_file()
    assert (folder / "share" / "x").read_bytes() == b"x"
    assert not list(folder.rglob("run"))


ROWS = "\n".join(f"{name},sha256={digest64(data)},{len(data)}" for name, data in FILES.items()) + "\n"
OTHER = ROWS.replace(digest64(FILES["thing/__init__.py"]), "AAAA")
BAD = {
    "other bytes": (
        OTHER,
        {},
        "'thing/__init__.py' has other bytes",
    ),
    "no digest": (ROWS.replace("sha256", "md5"), {}, "is listed with a digest of kind 'md5'"),
    "unlisted": (ROWS, {"evil.py": b""}, "holds 'evil.py', which its list of files has not"),
    "missing": (ROWS + "gone.py,sha256=x,1", {}, "lacks 'gone.py', which its list of files has"),
    "outside": (ROWS + "../x,sha256=x,1", {"../x": b""}, "a wheel holds '../x', which is no file below its folder"),
    "absolute": (ROWS + "/x,sha256=x,1", {"/x": b""}, "a wheel holds '/x'"),
    "control": (ROWS + "a\tb,sha256=x,1", {"a\tb": b""}, r"a wheel holds 'a\tb'"),
    "two lists": (ROWS, {"b-1.dist-info/RECORD": b""}, "2 lists of its files"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wheel_that_is_not_what_it_says_leaves_nothing(kind: str, board: Board) -> None:
    record, more, text = BAD[kind]
    fault = board.brings(wheel(FILES, more, record))
    assert fault["kind"] == "bad-wheel"
    assert text in fault["text"]
    assert not list((board.root / "venvs").iterdir())
    assert not (board.root.parent / "x").exists()


def test_what_is_no_zip_and_files_of_two_wheels_are_refused(board: Board) -> None:
    assert "is no wheel" in board.brings(b"PK no")["text"]
    assert "two wheels hold 'thing/__init__.py'" in board.brings(wheel(), wheel({**FILES, "more.py": b""}))["text"]


def test_a_link_in_a_wheel_is_refused(board: Board) -> None:
    info = zipfile.ZipInfo("thing/link")
    info.external_attr = 0o120777 << 16
    with pytest.raises(module.Refusal, match="'thing/link', which is no file below its folder"):
        module._check_name("thing/link", info)


def test_what_does_not_fit_is_refused_before_it_is_unpacked(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 60)
    fault = board.brings(wheel())
    assert fault["kind"] == "no-space"
    assert "MiB free, and the libraries take" in fault["text"]
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    assert "at most 0" in board.brings(wheel())["text"]


def test_questions_that_are_none_are_refused(board: Board) -> None:
    assert board.ask("environment", wheels=["../x"])["kind"] == "question"
    assert board.ask("environment", wheels=[])["kind"] == "question"
    assert board.ask("use-environment", id="../..")["kind"] == "no-environment"
    (board.root / "venv").mkdir()
    made = board.brings(wheel())
    assert board.ask("use-environment", id=made["id"])["kind"] == "foreign"


def test_a_half_made_environment_is_made_anew(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "rename", lambda *paths: sys.exit(9))
        with pytest.raises(SystemExit):
            board.brings(wheel())
    assert board.brings(wheel())["made"]
