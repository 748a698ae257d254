"""Which files go to a board for a command's inputs, and how what it says of them reads here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlx_deploy.commands.handing import Handed, hand_over
from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.devices.device import Device
from dlx_deploy.runtime.commands.asked import asked_inputs
from dlx_deploy.runtime.commands.predicting import PredictRequest, _open
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.tasks.text_inputs import TextInputs, Tokens
from dlx_deploy.runtime.views import Outcome

from ..runtime.conftest import contents, data, files, package

__all__ = ["contents", "data", "files", "package"]

FOLDER = "kept/abc.files"


class Board(RemoteBoard):
    """It takes what is put, and says what ``says`` makes of the last words that it is asked with."""

    def __init__(self, says: Callable[[Sequence[str]], Outcome] | None = None) -> None:
        self.files: Mapping[str, Path] = {}
        self.lines = b""
        self.says = says

    def put(self, path: Path) -> str:
        self.lines = path.read_bytes()
        return "kept/list.txt"

    def put_all(self, files: Mapping[str, Path]) -> str:
        self.files = files
        return FOLDER

    def run(self, package: str, command: Sequence[str]) -> Outcome:
        assert self.says is not None
        return self.says(command)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``pictures`` where the tests run; its files are sent and not read."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", ".env"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def texts() -> Package:
    inputs = TextInputs(Tokens(vocabulary=10, pad_id=9, max_length=8, truncate=True), b"")
    found: Any = SimpleNamespace(task=SimpleNamespace(inputs=inputs))
    return found  # type: ignore[no-any-return]


def test_what_goes_of_a_folder_is_what_is_read_of_it_here(package: Package, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.png").touch()
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / ".git").mkdir()
    (pictures / ".git/d.png").touch()
    board = Board()
    handed = hand_over(board, package, ["pictures/"])
    here = [sample.name for sample in _open(package, PredictRequest(["pictures/"]), ()).samples]
    assert [str(path) for path in board.files.values()] == here
    assert here == ["pictures/a.JPG", "pictures/b.png", "pictures/linked/c.png"]
    assert sorted(board.files) == list(board.files) == ["0/000000000.JPG", "0/000000001.png", "0/000000002.png"]
    assert handed.words == ["--", f"{FOLDER}/0"]
    assert list(handed.names.values()) == [*here, "pictures/"]
    (pictures / "gone.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"gone\.png: ") as caught:
        hand_over(board, package, ["pictures"])
    with pytest.raises(InputError) as caught_here:
        _open(package, PredictRequest(["pictures"]), ())
    assert str(caught.value) == str(caught_here.value)


def test_nothing_is_looked_for_on_the_board_that_is_not_here(package: Package, pictures: Path) -> None:
    board = Board()
    (pictures / "empty").mkdir()
    Path("broken.png").symlink_to("nowhere.png")
    os.mkfifo("pipe.png")
    for word, are_lines, said in (
        ("pictures/empty", False, r"pictures/empty: holds no images; an image's name ends in"),
        ("broken.png", False, r"broken\.png: cannot go to a board \(No such file or directory\); give a file"),
        ("pipe.png", True, r"pipe\.png: cannot go to a board \(no file, but a pipe or device\); give a file"),
        ("there.png", False, r"there\.png: no such image file"),
        ("there.png", True, r"there\.png: no such image file"),
        ("/etc/there", True, r"/etc/there: no such image file; the package classifies images: give their paths"),
    ):
        with pytest.raises(InputError, match=said):
            hand_over(board, package, [word], are_lines)
    assert (board.files, board.lines) == ({}, b"")


@pytest.mark.parametrize(
    ("given", "limit", "words", "sent"),
    [
        (["pictures"], 1, ["0"], ["pictures/a.JPG"]),
        (["pictures/b.png", "pictures", "clip.mp4"], 2, ["0.png", "1"], ["pictures/b.png", "pictures/a.JPG"]),
        (["clip.mp4", "pictures"], 2, ["0.mp4", "1"], ["clip.mp4", "pictures/a.JPG"]),
        (["pictures/b.png"] * 3 + ["pictures"], 3, ["0.png"] * 3, ["pictures/b.png"]),
        (["pictures", "pictures"], 3, ["0", "0"], ["pictures/a.JPG", "pictures/b.png"]),
        (["pictures"], 9, ["0"], ["pictures/a.JPG", "pictures/b.png"]),
        (["pictures"], 0, ["0"], ["pictures/a.JPG", "pictures/b.png"]),
    ],
)
def test_what_is_not_come_to_does_not_go_there(
    package: Package, pictures: Path, given: list[str], limit: int, words: list[str], sent: list[str]
) -> None:
    Path("clip.mp4").touch()
    board = Board()
    handed = hand_over(board, package, given, limit=limit)
    assert list(handed.words) == ["--", *(f"{FOLDER}/{word}" for word in words)]
    assert [str(path) for path in board.files.values()] == sent
    with pytest.raises(InputError, match=r"there\.png: no such image file"):
        hand_over(board, package, [*given, "there.png"], limit=limit)


def test_texts_that_are_not_come_to_do_not_go_there(texts: Package) -> None:
    board = Board()
    assert hand_over(board, texts, ["a b", "c d", "e f"], limit=2).words == ["--", "a b", "c d"]
    hand_over(board, texts, ["a b", "c d", "e f"], are_lines=True, limit=1)
    assert board.lines.decode("utf-8-sig") == "a b\n"


def test_lines_are_no_words_of_the_command_line(texts: Package, package: Package, pictures: Path) -> None:
    board = Board()
    lines = ["\ufeffwords", "pictures", "-", "--json", "a.png", ""]
    assert hand_over(board, texts, lines, are_lines=True).words == ["--file", "kept/list.txt"]
    assert board.files == {}
    Path("list.txt").write_bytes(board.lines)
    assert asked_inputs(texts, [], "list.txt", ()) == lines
    with pytest.raises(InputError, match="'pictures' is a folder here"):
        hand_over(board, texts, ["pictures"])
    assert hand_over(board, texts, ["some words", "--"]).words == ["--", "some words", "--"]
    hand_over(board, package, ["pictures/b.png", "pictures", "pictures/b.png"], are_lines=True)
    assert board.lines.decode("utf-8-sig").split() == [f"{FOLDER}/{i}" for i in ("0.png", "1", "0.png")]
    with pytest.raises(InputError, match=r"^caf\\udce9 \\udce9: is not UTF-8, as what goes to a board must be"):
        hand_over(board, texts, ["caf\udce9 \udce9"])


def test_a_task_that_reads_files_one_by_one_is_given_them(pictures: Path) -> None:
    made: Any = SimpleNamespace(task=SimpleNamespace(inputs=SimpleNamespace(check_argument=lambda one: None)))
    board = Board()
    assert hand_over(board, made, ["pictures/notes.txt", "3 cm"]).words == ["--", f"{FOLDER}/0.txt", "3 cm"]
    with pytest.raises(InputError, match=r"pictures: cannot go to a board \(a folder, and the package takes none\)"):
        hand_over(board, made, ["pictures"])


def test_what_is_said_has_the_names_of_here(package: Package, pictures: Path) -> None:
    odd = os.fsdecode(b'q"\n\\1.\xff')
    Path(odd).touch()
    Path("plain").touch()

    def says(command: Sequence[str]) -> Outcome:
        one, folder, plain = command[-3:]
        names = [one, f"{folder}/000000001.png", plain]
        failure = InputError(f"{plain}.png or {plain}. And {one}: {folder}/7 of {folder}.")
        return Outcome({"predictions": [{"image": name} for name in names]}, "\t".join(names), failure)

    board: Device = Board(says)
    view = hand_over(board, package, [odd, "pictures/", "plain"]).run(board, "x", ["predict"])
    names = [odd, "pictures/b.png", "plain"]
    assert view.data == {"predictions": [{"image": name} for name in names]}
    assert view.text == 'q"\\n\\1.\\udcff\tpictures/b.png\tplain', "as it is printed here"
    assert str(view.failure) == f"plain.png or plain. And {odd}: {FOLDER}/1/7 of pictures/."


def test_names_of_many_inputs_are_told_apart() -> None:
    names = {str(i): f"<{i}>" for i in (1, 12, 999_999, 1_000_000)}
    text = " ".join(f"{FOLDER}/{place}" for place in names)
    board: Any = SimpleNamespace(run=lambda package, command: Outcome({}, text))
    assert Handed([], FOLDER, names).run(board, "x", []).text == " ".join(names.values())
