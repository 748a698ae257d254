"""What boards say of themselves, from the command line; the board is this machine behind the stand-in for ssh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlx_deploy.devices import many
from dlx_deploy.devices.agent import measuring
from dlx_deploy.devices.agent.main import answer

from ..conftest import Here
from .fake_board import FakeBoard
from .here_board import HereBoard

RECORD = {"name": "digits", "version": "2.0", "target": "rpi5", "pushed_by": "ann@laptop", "pushed_at": "2026-11-27"}
DIGEST = "ab" * 32


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HereBoard:
    """One with a package in its home."""
    made = HereBoard(tmp_path / "home", power_mode_name="7W", board="NVIDIA Jetson\x1b", free_disk_mib=2048)
    release = made.home / "dlx-deploy" / "digits" / "releases" / DIGEST
    release.mkdir(parents=True)
    (release / "release.json").write_text(json.dumps({**RECORD, "number": 1, "state": "passed"}))
    (release.parents[1] / "current").symlink_to(f"releases/{DIGEST}")
    answer(
        {"command": "lock", "path": str(release.parents[1]), "token": "secret", "who": "bob@desk", "owner": {}}
        | {"purpose": "pushes", "since": "12:00"}
    )
    (tmp_path / "boards.toml").write_text('[boards.a]\nssh = "host-a"\npower_mode = "15W"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "FOLDERS", (str(tmp_path),))
    tmp_path.chmod(0o1777)

    class Login:
        def __init__(self, address: object) -> None:
            pass

        def __enter__(self) -> HereBoard:
            return made

        def __exit__(self, *error: object) -> None:
            return None

    monkeypatch.setattr(many, "SshConnection", Login)
    return made


@pytest.mark.usefixtures("board")
def test_a_board_says_what_it_is_and_what_is_on_it(here: Here) -> None:
    text = here("boards", "--facts").out
    assert "NVIDIA Jetson\\u001b" in text
    assert "onnxruntime 1.19.2" in text
    assert "7W, not 15W" in text
    assert "2.0 GiB" in text
    assert f"digits 2.0 ({DIGEST[:12]})" in text
    assert "bob@desk: pushes, since 12:00" in text
    told = here("boards", "a", "--facts", "--json").out
    assert "secret" not in told, "a lock's secret is the holder's"
    (seen,) = json.loads(told)["boards"]
    assert seen["packages"][0]["current"]["pushed_by"] == "ann@laptop"
    assert (seen["facts"]["arch"], seen["measuring"], seen["why"]) == ("x86_64", "", "")


def test_a_board_that_does_not_answer_is_a_row_and_exit_code_4(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBoard(tmp_path / "board", monkeypatch).refuses("ssh: connect to host b port 22: Connection refused")
    done = here("boards", "ssh://b", "--facts")
    assert done.code == 4
    assert "ssh://b  no answer" in done.out
    assert "error: ssh://b cannot be reached: no ssh server listens there" in done.err


def test_a_board_of_this_machine_is_asked_by_real_processes(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBoard(tmp_path / "board", monkeypatch, machine="riscv64")
    (seen,) = json.loads(here("boards", "ssh://b", "--facts", "--json").out)["boards"]
    assert (seen["facts"]["arch"], seen["packages"]) == ("riscv64", [])
    assert {"python", "numpy", "onnxruntime"} <= {*seen["facts"]["versions"]}
