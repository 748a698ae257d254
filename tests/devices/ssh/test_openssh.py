"""A connection: what goes over it, where it breaks, and that nothing is left of it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from dlx_deploy.devices import ssh
from dlx_deploy.devices.ssh import openssh, receiving
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.openssh import SshConnection
from dlx_deploy.errors import BoardError, BoardLost, BoardUnfit, BoardUnreachable, EnvironmentMissing

from ..fake_board import FakeBoard


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    return FakeBoard(tmp_path / "board", monkeypatch)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def runs(pid: int) -> bool:
    """Whether a process goes on, within a moment; one that ended and was not waited for does not."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.01)
    return True


def test_commands_and_sources_run_there_over_one_login(board: FakeBoard) -> None:
    board.talks("welcome\n")
    with board.connection() as there:
        assert there.name == "ssh://user@board"
        said = there.run(["sh", "-c", 'cat; echo "$0" >&2; exit 3', "it's; here"], stdin=b"bytes")
        assert (said.exit_code, said.stdout, said.stderr) == (3, b"welcome\nbytes", "it's; here")
        heard: list[str] = []
        source = "import os, sys\ndef main(a):\n    print('talk')\n    return {'cwd': os.getcwd(), 'b': a['b'] + 1}\n"
        assert there.python(source, {"b": 1}, heard=heard.append) == {"cwd": str(board.home), "b": 2}
        assert heard == ["talk"]
        with pytest.raises(BoardError, match=r"ssh://user@board: OSError: no \\u001b room \(Python 3"):
            there.python("def main(a):\n    raise OSError('no \\x1b room')", {})
        folder = there._login.folder if there._login else Path()
        assert folder.stat().st_mode & 0o077 == 0
    logins = [asked for asked in board.asked() if " -M " in asked]
    assert len(logins) == 1
    assert "BatchMode=yes" in logins[0]
    assert "StrictHostKeyChecking" not in logins[0]
    assert not folder.exists()
    assert not Path(f"/proc/{(board.folder / 'master').read_text().strip()}").exists()


def test_a_file_goes_over_once_and_goes_on_where_it_broke_off(board: FakeBoard, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "x").write_bytes(data)
    there, part = board.connection(), board.home / "in/x.part"
    with there:
        there.python("def main(a): return {}", {})
        board.cut(150_000, after_commands=1)  # the first one asks what is there
        with pytest.raises(BoardLost, match=r"to ssh://user@board broke off .* of 300000 bytes of x went over"):
            there.send(tmp_path / "x", "in/x", sha256(data))
        kept = part.stat().st_size
        assert 0 < kept < 150_000
        assert part.read_bytes() == data[:kept]
        moved: list[float] = []
        there.send(tmp_path / "x", "in/x", sha256(data), lambda done, total, text="": moved.append(done))
        assert moved[0] == len(data)
        assert len(moved) == 1
        assert (board.home / "in/x").read_bytes() == data
        assert not part.exists()
        there.send(tmp_path / "x", "in/x", sha256(data), lambda done, total, text="": moved.append(text))
        assert moved[1:] == ["x is there"]


def test_other_bytes_are_not_built_upon_and_do_not_get_the_name(board: FakeBoard, tmp_path: Path) -> None:
    data = os.urandom(1000)
    (tmp_path / "x").write_bytes(data)
    (board.home / "x.part").write_bytes(b"of another file")
    with board.connection() as there:
        with pytest.raises(BoardError, match=r"x arrived with other bytes than it had here \(SHA-256\)"):
            there.send(tmp_path / "x", "x", sha256(b"promised"))
        assert sorted(path.name for path in board.home.iterdir()) == []
        (board.home / "x.part").write_bytes(b"of another file")
        there.send(tmp_path / "x", "x", sha256(data))
        assert (board.home / "x").read_bytes() == data
        with (board.home / "y.part").open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(BoardError, match="another copy of x is under way to y; wait"):
                there.send(tmp_path / "x", "y", sha256(data))
        there.fetch("x", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        with pytest.raises(BoardError, match=r"FileNotFoundError: .* No such file or directory: 'none'"):
            there.fetch("none", tmp_path / "none")
        os.truncate(board.home / "x", 65 << 20)
        with pytest.raises(BoardError, match="x has 68157440 bytes; at most 67108864 are fetched"):
            there.fetch("x", tmp_path / "none")
        assert not (tmp_path / "none").exists()


def test_a_sender_who_is_lost_without_a_word_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends the process that waits for the next byte; it is called off while a byte is written."""
    clock: list[object] = []
    monkeypatch.setattr(receiving.signal, "alarm", clock.append)

    class Stream(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            clock.append("read")
            return super().read1(size)

    part = io.BytesIO()
    assert receiving.take(Stream(b"abc"), part, 4) == 3
    assert part.getvalue() == b"abc"
    assert clock == [receiving.SILENCE_S, "read", 0] * 2
    assert receiving.SILENCE_S < openssh.SILENCE_S


def test_a_file_that_got_its_name_meanwhile_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, part = tmp_path / "x", tmp_path / "x.part"
    part.write_bytes(b"whole")
    monkeypatch.setattr(receiving.fcntl, "flock", lambda *how: part.exists() and part.rename(path))
    asked = {"path": str(path), "digest": sha256(b"whole"), "bytes": 5, "offset": 0}
    assert receiving.receive(asked) == {"busy": True}
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "ssh-keygen -R user@board",
        ),
        ("No ED25519 host key is known for board.\nHost key verification failed.", "is not known here .*accept it"),
        ("user@board: Permission denied (publickey).", "refuses the user or the key .*ssh-copy-id user@board"),
        ("ssh: connect to host board port 22: Connection refused", "no ssh server listens there"),
        ("ssh: connect to host board port 22: No route to host", "no route to it"),
        ("ssh: Could not resolve hostname board: Name or service not known", "its name is not known"),
        ("ssh: connect to host board port 22: Connection timed out", "does not answer .*ping user@board"),
        ("kex_exchange_identification: read: Connection reset by peer", "hung up before the login"),
        ("x: line 1: Bad configuration option: speed", "configuration cannot be used"),
        ("all \x1b other", r"ssh says: all \\u001b other; try ssh user@board by hand"),
    ],
)
def test_why_a_board_cannot_be_reached(board: FakeBoard, words: str, said: str) -> None:
    board.refuses(words)
    with pytest.raises(BoardUnreachable, match=f"ssh://user@board cannot be reached: .*{said}") as refused:
        board.connection().run(["true"])
    assert refused.value.exit_code == 4


def test_no_python_no_sign_of_life_no_ssh(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    with SshConnection(parse_address("ssh://board"), "python9") as there:
        with pytest.raises(BoardUnfit, match=r"ssh://board has no python9 \(.*not found\); install Python 3 there"):
            there.python("", {})
        with pytest.raises(BoardError, match="sleep has been silent for 0 s and was given up"):
            there.run(["sleep", "30"], timeout_s=0.1)
        with pytest.raises(BoardError, match="ssh://board: a signal ended sh there, as where memory runs out"):
            there.run(["sh", "-c", "exit 255"])
    monkeypatch.setenv("DLX_DEPLOY_SSH", "no-such-ssh -F x")
    with pytest.raises(EnvironmentMissing, match="'no-such-ssh' is not on PATH; install OpenSSH's client"):
        board.connection().run(["true"])


@pytest.mark.usefixtures("ctrl_c")
def test_an_interruption_leaves_no_process_and_a_lost_login_is_made_anew(board: FakeBoard) -> None:
    there, main = board.connection(), threading.main_thread().ident
    assert main is not None
    source = "import os, sys, time\ndef main(a):\n    print(os.getpid())\n    time.sleep(30)\n"
    pids: list[int] = []

    def interrupt(text: str) -> None:
        pids.append(int(text))
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        there.python(source, {}, heard=interrupt)
    assert not runs(pids[0])
    master = int((board.folder / "master").read_text())
    os.kill(master, signal.SIGKILL)
    assert there._login is not None
    assert there._login.lost_within(5)
    assert there.run(["echo", "again"]).stdout == b"again\n"
    assert int((board.folder / "master").read_text()) != master
    there.close()
    there.close()


def test_a_socket_s_folder_that_a_killed_process_left_is_swept(
    board: FakeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # the path of a socket has a hundred characters at most
        room = Path(short)
        monkeypatch.setattr("tempfile.tempdir", short)
        (room / "dlx-ctl-left").mkdir()
        os.utime(room / "dlx-ctl-left", (0, 0))
        with board.connection() as there:
            there.run(["true"])
            (own,) = room.glob("dlx-ctl-*")
            assert own.name != "dlx-ctl-left"
        assert not list(room.glob("dlx-ctl-*"))


def test_what_runs_there_ends_when_nobody_waits_for_it(board: FakeBoard) -> None:
    """As where this machine dies: nothing is told to the board but that its standard input ends."""
    source = (Path(ssh.__file__).parent / "there.py").read_text()
    sent = "import subprocess\ndef main(a):\n    child = subprocess.Popen(['sleep', '30'])\n"
    sent += "    print(child.pid, flush=True)\n    child.wait()\n"
    header = json.dumps({"source": len(sent), "argument": 2, "watch": True})
    command = "import sys;exec(sys.argv[1])"
    with subprocess.Popen(
        [sys.executable, "-c", command, source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{header}\n{sent}{{}}".encode())
        process.stdin.flush()
        child = int(process.stderr.readline())
        assert runs(child)
        process.stdin.close()
        assert process.wait(30) == -signal.SIGTERM
    assert not runs(child)
