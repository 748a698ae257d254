"""A board over a connection, as a device: a stand-in for ssh runs what is sent in another folder of this machine."""

from __future__ import annotations

import platform
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.devices.device import Device
from dlx_deploy.devices.fits import check_fits
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.devices.measuring import measuring
from dlx_deploy.errors import BoardError, BoardLost, BoardUnfit
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble, open_package
from dlx_deploy.runtime.timing.sampling import Sampling
from dlx_deploy.targets import load_target

from ..runtime.conftest import make_images, tiny_contents
from .fake_board import FakeBoard


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    return FakeBoard(tmp_path / "board", monkeypatch)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "x.dlx"
    write_archive(path, assemble(tiny_contents(*make_images(12))))
    return path


def test_what_is_put_is_sent_once_and_the_oldest_goes(
    board: FakeBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.devices.kept.KEPT_BYTES", 100)
    kept = board.home / ".cache/dlx-deploy/kept"
    for name in ("a", "b"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode() * 80)
    with board.connection() as connection:
        there = RemoteBoard(connection).put(tmp_path / "a.onnx")
        (board.home / there).touch()
        again = RemoteBoard(connection)
        assert again.put(tmp_path / "a.onnx") == there
        inode = (board.home / there).stat().st_ino
        other = again.put(tmp_path / "b.onnx")
        assert (board.home / there).stat().st_ino == inode  # not sent again
        (tmp_path / "c.onnx").write_bytes(b"c" * 80)
        RemoteBoard(connection).put(tmp_path / "c.onnx")
        assert sum(path.name in (there[-69:], other[-69:]) for path in kept.iterdir()) == 1


def test_a_package_is_run_and_models_are_timed_there(package: Path, board: FakeBoard, tmp_path: Path) -> None:
    heard: list[str] = []
    with board.connection() as connection:
        there: Device = RemoteBoard(connection, heard.append)
        path = there.put(package)
        outcome = there.run(path, ["selftest"])
        assert (outcome.data["images"], outcome.failure) == (4, None)
        assert "self-test passed: 4 golden inputs" in outcome.text
        with pytest.raises(InputError, match=r"on ssh://user@board: --streams is 0; must be 1 to 256"):
            there.run(path, ["bench", "--streams", "0"])
        assert there.run_apart(path, ["inspect"])["name"] == "tiny"
        with pytest.raises(BackendMissing, match=r"bench on .* ended with exit code 2: error: rounds is 0"):
            there.run_apart(path, ["bench", "--rounds", "0"])
        seen = open_package(package)
        (tmp_path / "model.onnx").write_bytes(seen.model)
        models = {"a": tmp_path / "model.onnx", "b": tmp_path / "model.onnx"}
        row, moved = Samples(seen.golden_inputs)[:1], list[str]()
        told = there.latencies(models, row, Sampling(40, pace=0.0), 1, lambda done, total, text="": moved.append(text))
        assert [told.latencies[name].n for name in models] == [40, 40]
        assert told.latencies["a"].p50_ms > 0
        assert told.latencies["a"].block_p50_ms
        assert told.state is not None
        assert moved[:1] == ["warm-up"]
        assert there.identity.items() >= ThisMachine().identity.items()
        assert there.identity["versions"]["numpy"] == np.__version__
        facts = there.facts()
        assert (facts.arch, facts.versions["numpy"]) == (platform.machine(), np.__version__)
        assert "over ssh" in there.name
        assert "board" not in there.name
        if why := there.energy_unknown("cpu"):
            assert there.energy(models["a"], row, 1).why == why


def test_an_older_package_is_run_by_the_runtime_from_here(package: Path, board: FakeBoard, tmp_path: Path) -> None:
    heard: list[str] = []
    with board.connection() as connection:
        there = RemoteBoard(connection, heard.append)
        path = there.put(package)
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("dlx_runtime/__init__.py", "")
        assert there.run(path, ["selftest"]).failure is None
    assert heard[:1] == ["the package's runtime is older than this dlx-deploy, whose own runs it there"]


@pytest.mark.parametrize(
    ("claims", "target", "said"),
    [
        ({"machine": "armv7l"}, "cpu-x86_64", "is armv7l, and cpu-x86_64 is x86_64; give the board"),
        ({"machine": "aarch64"}, "rpi5", "is a machine without a device tree, and rpi5 is Raspberry Pi 5"),
        (
            {"machine": "aarch64"},
            "jetson-orin-nano-8gb",
            "is a machine without .* is Orin Nano;",
        ),
        ({"python": "3.6.9"}, "cpu-x86_64", "has Python 3.6.9; packages need 3.8 or newer"),
    ],
)
def test_a_board_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claims: dict[str, str], target: str, said: str
) -> None:
    board = FakeBoard(tmp_path / "board", monkeypatch, **claims)
    with board.connection() as connection, pytest.raises(BoardUnfit, match=f"ssh://user@board {said}"):
        check_fits(connection.name, RemoteBoard(connection).host, load_target(target).profile)


def test_nothing_is_sent_to_too_old_a_python(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = FakeBoard(tmp_path / "board", monkeypatch, python="3.6.9")
    with board.connection() as connection, pytest.raises(BoardUnfit, match=r"has Python 3\.6\.9; packages"):
        RemoteBoard(connection).put(package)
    assert list(board.home.iterdir()) == []


def test_a_board_that_is_lost_while_it_works_is_said(package: Path, board: FakeBoard) -> None:
    with board.connection() as connection:
        there = RemoteBoard(connection)
        path = there.put(package)
        board.cut(1000)
        with pytest.raises(BoardLost, match="The connection to ssh://user@board broke off while python3 ran there"):
            there.run(path, ["selftest"])


def test_nobody_measures_beside_another(package: Path, board: FakeBoard) -> None:
    with board.connection() as first, board.connection() as second, measuring(first, "a push"):
        there = RemoteBoard(second)
        with pytest.raises(BoardError, match=r"measures on it \(a push\), since "):
            there.run(there.put(package), ["bench"])
