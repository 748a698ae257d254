"""The connection to a board, on an emulated one: another architecture, a real SSH server, keys and host keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.openssh import SshConnection
from dlx_deploy.errors import BoardError

from .board import Board

pytestmark = pytest.mark.board


@pytest.fixture
def connection(board: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshConnection]:
    monkeypatch.setenv("DLX_DEPLOY_SSH", board.ssh)
    with SshConnection(parse_address(board.address)) as connected:
        yield connected


def test_it_is_another_machine(board: Board, connection: SshConnection) -> None:
    assert connection.run(["uname", "-m"]).stdout.strip() == b"aarch64"
    source = "import platform, onnxruntime as o\ndef main(a):\n    return {platform.machine(): [o.__version__, a]}"
    assert connection.python(source, "ä") == {"aarch64": ["1.32.0", "ä"]}


def test_a_file_goes_there_whole_and_comes_back(connection: SshConnection, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "sent").write_bytes(data)
    connection.send(tmp_path / "sent", "got/file", hashlib.sha256(data).hexdigest())
    connection.fetch("got/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_another_host_key_is_refused(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = (board.state / "ssh_config").read_text()
    other = (board.state / "key.pub").read_text().split()[1]  # a key, not the host's
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{board.port} ssh-ed25519 {other}\n")
    changed = config.replace(f"{board.state}/known_hosts", f"{tmp_path}/known_hosts")
    (tmp_path / "ssh_config").write_text(changed)
    monkeypatch.setenv("DLX_DEPLOY_SSH", f"ssh -F {tmp_path / 'ssh_config'}")
    with SshConnection(parse_address(board.address)) as connected, pytest.raises(BoardError, match="host key"):
        connected.run(["true"])


def test_what_is_on_its_disk_outlives_a_power_cut(board: Board) -> None:
    board.run("echo kept > kept.txt; sync; echo gone > /tmp/gone.txt")
    board.power_off()
    board.boot()
    assert board.run("cat kept.txt; ls /tmp; uname -n") == "kept\nemulated"
