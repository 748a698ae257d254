"""Every command of the guide, in the order of its page, in a folder of its own; builds are made small.

A ``bash`` block is what a reader types where packages are built, an ``sh`` block what is typed on a board. Of the
latter all that calls a package is run too; what only the board can run is listed here.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import PACKAGE, tiny
from ..devices.fake_board import FakeBoard
from ..warm import run_warm
from .pages import DOCS

ROOT = DOCS.parent
GUIDE = sorted((DOCS / "guide").glob("*.md"))
ON_THE_BOARD = ("sudo ", "python3 -m venv", "~/vision/bin/pip ", "python3 -m pip ")
"""What only a board can run: its package manager, its services."""
INSTALLS = ("pip ",)
DLX = [sys.executable, "-m", "dlx_deploy.cli"]
PYTHONS = ("python", "python3", "~/vision/bin/python")
TRAINS = ("dlx-deploy build", "dlx-deploy plan", "dlx-deploy why")
ENDS_WITH = {
    " engine": (0, 4, 7),
    " bench": (0, 3, 6),
    "selftest --no-build": (0, 4, 7),
    " verify": (0, 6),
    " --camera": (0, 2, 4),
    " --rollback": (0, 4),
}
"""Exit codes that depend on the machine, by what a command holds; others end with 0."""
ELSEWHERE = (
    *("dlx-deploy boards", "dlx-deploy verify", "dlx-deploy selftest", "dlx-deploy bench", "dlx-deploy build"),
    *("dlx-deploy predict X.dlx photos/", "dlx-deploy predict X.dlx --camera"),
    *("dlx-deploy push X.dlx gates", *(f"dlx-deploy push X.dlx ssh://user@board --{o}" for o in ("b", "s", "no-s"))),
)
"""Of the page on boards: what takes the reader's inventory, photos or data set, an index of wheels, or systemd."""
SECONDS = 900
EVERY = 8
"""So many of the tutorial's photos are kept here."""
SOME = ("threads=1", "data.calibration_images=16", "verify.rounds=60", "compile.rounds=60", "gate.max_drop=0.99")


def commands(page: Path, language: str) -> list[str]:
    """The commands of the blocks in ``language``, lines that go on joined."""
    blocks = re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def words_of(command: str) -> list[str]:
    """As they are run here; builds with settings that take seconds."""
    words = shlex.split(command, comments=True)
    if words[0] in PYTHONS:
        return [sys.executable, *words[1:]]
    assert words[0] == "dlx-deploy", f"{command}: no command of ours; list it in this test, with the reason"
    if command.startswith(TRAINS):
        words += tiny("distill.model=resnet8", "gate.allow_chance=true")
    elif command.startswith("dlx-deploy quantize"):
        words += [part for setting in (*SOME, "gate.allow_chance=true") for part in ("--set", setting)]
    return [*DLX, *words[1:]]


def run(command: str, folder: Path) -> None:
    words = words_of(command)
    if words[:3] == DLX:
        done = run_warm(words[3:], folder, SECONDS)
    else:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    allowed = next((codes for part, codes in ENDS_WITH.items() if part in command), (0,))
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def run_all(page: str, folder: Path, *, skip: Sequence[str] = ()) -> None:
    for command in commands(DOCS / "guide" / page, "bash"):
        if not command.startswith((*INSTALLS, *skip)):
            run(command, folder)
    for package in folder.glob("dist/*.dlx"):
        shutil.copyfile(package, folder / package.name)  # the way to the board
    for command in commands(DOCS / "guide" / page, "sh"):
        if not command.startswith(ON_THE_BOARD):
            run(command, folder)


@pytest.fixture
def board(built: Path, tmp_path: Path) -> Path:
    """What lies on a board: a package and a photo."""
    shutil.copyfile(built / PACKAGE, tmp_path / "X.dlx")
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    return tmp_path


def test_there_are_commands_to_run() -> None:
    pages = {page.name for page in GUIDE if commands(page, "bash") or commands(page, "sh")}
    assert pages == {"boards.md", "tutorial.md", "recipes.md", "ci.md", "jetson.md", "neighbours.md", "raspberry-pi.md"}


@pytest.mark.parametrize("page", ["jetson.md", "neighbours.md", "raspberry-pi.md"])
def test_what_is_typed_on_a_board_works(page: str, board: Path) -> None:
    run_all(page, board)


def test_what_is_typed_for_a_board_works(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBoard(board / "far", monkeypatch, machine="aarch64")
    run_all("boards.md", board, skip=ELSEWHERE)


def test_what_ci_types_works(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    run("dlx-deploy init deploy.toml", tmp_path)
    run_all("ci.md", tmp_path)


def photos(folder: Path) -> None:
    """Those of the tutorial, fewer."""
    (folder / "examples").symlink_to(ROOT / "examples")
    run("python examples/photos/make_photos.py photos", folder)
    for number, path in enumerate(sorted((folder / "photos").rglob("*.jpg"))):
        if number % EVERY and path.name != "000.jpg" and path.name != "001.jpg":
            path.unlink()


def test_the_tutorial_works(tmp_path: Path) -> None:
    photos(tmp_path)
    run_all("tutorial.md", tmp_path, skip=["python examples/photos/make_photos.py"])
    assert (tmp_path / "photos.html").is_file()


NET = """
from torch import nn


def make(num_classes: int = 2):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )
"""


def write_networks(folder: Path) -> None:
    """``net.py`` with its weights, and an ONNX model of the same kind, as torch exports it: both read 16 px."""
    import torch
    from safetensors.torch import save_file

    (folder / "net.py").write_text(NET)
    names: dict[str, object] = {}
    exec(NET, names)
    torch.manual_seed(0)
    net = names["make"]()  # type: ignore[operator]
    save_file(net.state_dict(), folder / "net.safetensors")
    example = torch.zeros(1, 3, 16, 16)
    torch.onnx.export(net.eval(), (example,), folder / "model.onnx", input_names=["input"], dynamo=True)


def test_the_recipes_work(tmp_path: Path) -> None:
    photos(tmp_path)
    write_networks(tmp_path)
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},{path.parent.parent.name}" for path in paths]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    run_all("recipes.md", tmp_path)
    assert list((tmp_path / "dist").glob("*.dlx"))
