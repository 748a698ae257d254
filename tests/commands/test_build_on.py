"""build --on: which board is which target, what is refused before anything runs, and what is proven at the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dlx_deploy.commands import on_board
from dlx_deploy.commands.on_board import Reaching, boards_of, prove_packages
from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.devices.choice import device_for
from dlx_deploy.errors import BoardLost, BoardUnfit, ConfigError
from dlx_deploy.pipeline.plan import Resolver
from dlx_deploy.runtime.errors import Undecided
from dlx_deploy.runtime.tasks.labelled_arrays import write_arrays
from dlx_deploy.targets import load_target, read_host
from tests.conftest import Here
from tests.devices.fake import FakeDevice
from tests.devices.fake_board import FakeBoard
from tests.report.test_proofs import package
from tests.runtime.conftest import make_images

__all__ = ["package"]

BOARD = "ssh://edge@board"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    return FakeBoard(tmp_path / "board", monkeypatch)


def test_a_target_is_the_board_that_is_given_for_it(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_target("cpu-x86_64").profile
    before = device_for(profile)
    claimed = msgspec.structs.replace(read_host(), arch="x86_64")
    monkeypatch.setattr("dlx_deploy.devices.board.read_host", lambda *files: claimed)
    with boards_of([f"cpu-x86_64={BOARD}"], ["cpu-x86_64", "jetson-orin-nano-8gb"], Reaching()) as found:
        there = device_for(profile)
        assert there is found["cpu-x86_64"]
        assert (there.is_here, "over ssh" in there.name) == (False, True)
    assert device_for(profile) == before
    stored = "gone: it goes on after the last finished stage, which is stored"
    with pytest.raises(BoardLost, match=stored), boards_of([BOARD], ["cpu-x86_64"], Reaching()):
        raise BoardLost("gone")


def test_a_gpu_target_s_models_are_not_timed_by_a_cpu(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = msgspec.structs.replace(read_host(), arch="aarch64", board="NVIDIA Jetson Orin Nano")
    monkeypatch.setattr("dlx_deploy.devices.board.read_host", lambda *files: claimed)
    with boards_of([BOARD], ["jetson-orin-nano-8gb"], Reaching()) as found:
        assert list(found) == ["jetson-orin-nano-8gb"]
        assert device_for(load_target("jetson-orin-nano-8gb").profile) is None


@pytest.mark.parametrize(
    ("on", "targets", "said"),
    [
        ([BOARD], ["rpi4", "rpi5"], "which of rpi4, rpi5 is it"),
        ([f"rpi4={BOARD}"], ["rpi5"], "rpi4 is not built; the targets are rpi5"),
        ([f"rpi5={BOARD}", f"rpi5={BOARD}"], ["rpi5"], "rpi5 has a board already"),
    ],
)
def test_which_board_is_which_target_must_be_plain(
    board: FakeBoard, monkeypatch: pytest.MonkeyPatch, on: list[str], targets: list[str], said: str
) -> None:
    claimed = msgspec.structs.replace(read_host(), arch="aarch64", board="Raspberry Pi 5 Model B")
    monkeypatch.setattr("dlx_deploy.devices.board.read_host", lambda *files: claimed)
    with pytest.raises(ConfigError, match=said), boards_of(on, targets, Reaching()):
        pass


def test_a_board_that_is_not_the_target_is_refused_before_anything_runs(
    board: FakeBoard, here: Here, tmp_path: Path
) -> None:
    done = here("build", "--target", "rpi5", "--on", BOARD)
    assert (done.code, done.out) == (4, "")
    assert "error: ssh://edge@board is " in done.err
    assert not (tmp_path / ".dlx").exists()
    with pytest.raises(BoardUnfit), boards_of([BOARD], ["rpi5"], Reaching()):
        pass


def test_what_is_computed_here_does_not_rest_on_a_board() -> None:
    def host_of(device: Any, times: bool) -> dict[str, Any]:
        stage = SimpleNamespace(times_host=times)
        resolver = cast(Any, object.__new__(Resolver))
        resolver._build = SimpleNamespace(device=device)
        return dict(resolver._host(SimpleNamespace(stage=stage)))

    seen = [host_of(FakeDevice(is_here=here), times) for here in (True, False) for times in (True, False)]
    assert seen == [{"cpu": "a CPU"}, {"cpu": "a CPU"}, {"cpu": "a CPU"}, {}]
    assert host_of(None, True) == {}


def test_a_package_that_was_built_on_a_board_is_proven_there(
    package: Path, tmp_path: Path, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = make_images(12)
    write_arrays(tmp_path / "test.npz", {"images": images}, {"label": labels})
    said: list[str] = []
    monkeypatch.setattr(on_board, "say", said.append)
    monkeypatch.setattr(on_board, "_test_split", lambda package, store: tmp_path / "test.npz")
    monkeypatch.setattr("dlx_deploy.delivery.package_path", lambda config, build, output: package)
    config = SimpleNamespace(verify=SimpleNamespace(threads=1))
    builds = [SimpleNamespace(target_name="board"), SimpleNamespace(target_name="elsewhere")]
    work = cast(Any, SimpleNamespace(config=config, builds=builds, store=None))
    with (
        board.connection() as connection,
        pytest.raises(Undecided, match=r"on ssh://user@board: accuracy drop .* on 12 samples"),
    ):
        prove_packages(work, tmp_path, {"board": RemoteBoard(connection)}, tmp_path / "store")
    assert any("package 100.00 % of 12 images" in text for text in said)
    assert said[-1] == f"the proof is attached to {package.with_suffix('.manifest.json')}"
