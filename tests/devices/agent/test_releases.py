"""Releases on a board, as the agent keeps them: in this process, on a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import releases as module
from dlx_deploy.devices.agent.files import Refusal, write
from dlx_deploy.devices.agent.lock import lock
from dlx_deploy.devices.agent.main import COMMANDS, answer

TOKEN = "a" * 32


class Board:
    """A folder, and the agent at work on it for one who holds the lock, and takes it anew once it is given back."""

    def __init__(self, root: Path) -> None:
        self.root, self.locks = root, True

    def __call__(self, command: str, **fields: Any) -> Any:
        if self.locks:
            lock({"path": str(self.root), "token": TOKEN, "who": "me", "purpose": "push", "since": "now"})
        said = answer({"command": command, "path": str(self.root), "token": TOKEN, **fields})
        if "fault" in said:
            raise Refusal(said["fault"]["kind"], said["fault"]["text"])  # type: ignore[index]
        return said["ok"]

    def come(self, data: bytes) -> str:
        """``data`` as if it had just been sent."""
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "incoming").mkdir(parents=True, exist_ok=True)
        (self.root / "incoming" / digest).write_bytes(data)
        return digest

    def release(self, data: bytes, state: str = "passed") -> str:
        digest = self.come(data)
        self("install", digest=digest, facts={"name": data.decode()})
        self("mark", digest=digest, state=state)
        return digest

    def activate(self, data: bytes) -> str:
        digest = self.release(data)
        self("activate", digest=digest)
        return digest

    @property
    def current(self) -> bytes:
        return (self.root / "current" / "package.dlx").read_bytes()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "app")


def test_a_release_is_installed_and_made_current(board: Board) -> None:
    digest = board.come(b"one")
    came = {"come": True, "bytes": 3, "incoming": str(board.root / "incoming" / digest)}
    assert board("partial", digest=digest) == {"installed": False, **came}
    said = board("install", digest=digest, facts={"name": "n"}, signature="c2ln")
    assert said == {"package": str(board.root / "releases" / digest / "package.dlx"), "sent": True}
    assert (board.root / "releases" / digest / "package.dlx.sig").read_bytes() == b"sig"
    with pytest.raises(Refusal, match="is installed; only one whose checks passed becomes current"):
        board("activate", digest=digest)
    board("mark", digest=digest, state="passed", checks={"selftest": {"images": 8}})
    assert board("activate", digest=digest) == {"current": digest, "before": None}
    assert os.readlink(board.root / "current") == f"releases/{digest}"
    assert board.current == b"one"
    (told,) = board("releases")["releases"]
    assert (told["name"], told["state"], told["number"], told["schema"]) == ("n", "passed", 1, 1)
    assert board("partial", digest=digest) == {"installed": True, **came}


def test_rollback_goes_back_one_at_a_time(board: Board) -> None:
    first, second, third = board.activate(b"1"), board.activate(b"2"), board.activate(b"3")
    told = board("rollback")
    assert (told["from"]["digest"], told["to"]["digest"], told["to"]["name"]) == (third, second, "2")
    assert board("rollback")["to"]["digest"] == first
    assert board.current == b"1"
    with pytest.raises(Refusal, match="has no release before the current one; push one"):
        board("rollback")
    board("activate", digest=third)
    assert board("rollback")["to"]["digest"] == first  # and not the one that it left


def test_a_rollback_passes_over_what_is_gone_failed_or_damaged(board: Board) -> None:
    board.activate(b"1")
    damaged = board.activate(b"1a")
    (board.root / "releases" / damaged / "package.dlx").write_bytes(b"1b")
    failed = board.activate(b"2")
    board.activate(b"3")
    board("mark", digest=failed, state="failed", why="golden image 0 differs")
    assert board("rollback")["to"]["name"] == "1"


def test_the_newest_are_kept_with_the_current_one_and_the_one_before(board: Board) -> None:
    digests = [board.activate(str(i).encode()) for i in range(5)]
    bad = board.release(b"bad", "failed")
    board("rollback")  # 3 is current, 2 was before it
    (board.root / "incoming").mkdir(exist_ok=True)
    (board.root / "incoming" / "x.part").write_bytes(b"half")
    (board.root / "releases" / f".new-{'0' * 64}").mkdir()
    said = board("prune", keep=1, digest=digests[3])
    assert set(said["removed"]) == {digests[0], digests[1], bad}
    assert {p.name for p in (board.root / "releases").iterdir()} == {digests[2], digests[3], digests[4]}
    assert not (board.root / "incoming").exists()
    assert board("rollback")["to"]["digest"] == digests[2]


@pytest.mark.parametrize("step", ["replace", "rename", "write_table", "symlink"])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_killed_at_any_rename_it_goes_on_from_what_is_there(
    board: Board, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    """The agent dies before the ``call``-th of its steps of one kind; the next push ends as if nothing had been."""
    first, data = board.activate(b"1"), b"2"
    digest, calls = board.come(data), []
    place: Any = module if step == "write_table" else os
    original = getattr(place, step)

    def die(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == call + 1:
            raise KeyboardInterrupt
        original(*arguments, **options)

    def push() -> None:
        board("install", digest=digest, facts={"name": "2"})
        board("mark", digest=digest, state="passed")
        board("activate", digest=digest)

    with monkeypatch.context() as patched:
        patched.setattr(place, step, die)
        try:
            push()
        except KeyboardInterrupt:
            assert board.current == b"1"
            assert board("releases")["current"] == first
            assert board("partial", digest=digest)["come"]  # it need not be sent again
    push()
    assert board.current == data
    assert board("rollback")["to"]["digest"] == first
    assert not list(board.root.glob("releases/.new-*"))


def test_what_cannot_be_removed_stops_nothing(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    first = board.activate(b"1")
    digests = [board.activate(str(i).encode()) for i in (2, 3)]

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rmdir", refuse)
    assert board("prune", keep=1, digest=digests[1]) == {"removed": [], "kept": [*reversed(digests), first]}


def test_a_damaged_release_is_sent_and_replaced(board: Board) -> None:
    digest = board.activate(b"one")
    (board.root / "releases" / digest / "package.dlx").write_bytes(b"onf")
    partial = board("partial", digest=digest)
    assert (partial["installed"], partial["come"], partial["bytes"]) == (False, False, 0)
    board.come(b"one")
    assert board("install", digest=digest, facts={})["sent"]
    assert board.current == b"one"


def test_what_is_not_the_package_is_not_installed(board: Board) -> None:
    digest = board.come(b"one")
    (board.root / "incoming" / digest).write_bytes(b"two")
    with pytest.raises(Refusal, match=r"has SHA-256 [0-9a-f]{64}, not its own; push again"):
        board("install", digest=digest, facts={})
    assert not (board.root / "releases" / digest).exists()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"digest": "../../etc"}, "digest is '../../etc'; must be a SHA-256 in hexadecimal"),
        ({"digest": "0" * 64, "state": "fine"}, "state is 'fine'; must be one of installed, passed, failed"),
        ({"digest": "0" * 64, "state": "passed"}, "has no release 0{64}; push it"),
        ({"digest": 7}, "digest is 7; must be a text"),
        ({"digest": "0" * 64, "state": "passed", "path": "a\0b"}, r"path is 'a\\x00b'; must be a text"),
    ],
)
def test_a_wrong_question_is_refused(board: Board, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(Refusal, match=text):
        board("mark", **fields)


def test_current_that_is_no_link_is_left_alone(board: Board) -> None:
    digest = board.release(b"one")
    (board.root / "current").mkdir()
    with pytest.raises(Refusal, match="current is there and no link; move it away"):
        board("activate", digest=digest)
    assert (board.root / "current").is_dir()


def test_without_the_lock_nothing_changes(board: Board) -> None:
    digest = board.release(b"one")
    lock({"path": str(board.root), "token": "other", "who": "you@there", "purpose": "p", "since": "s", "steal": True})
    board.locks = False
    with pytest.raises(Refusal, match="was lost; it is held by you@there; push again"):
        board("activate", digest=digest)


def test_an_unknown_command_names_the_known_ones() -> None:
    assert answer({"command": "rm"})["fault"] == {
        "kind": "question",
        "text": f"command is 'rm'; must be one of {', '.join(COMMANDS)}",
    }


def test_what_a_killed_one_leaves_beside_a_file_is_gone_after_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.json"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *given: os._exit(9))
        if (child := os.fork()) == 0:
            write(str(path), b"never")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(os.listdir(tmp_path)) == 1
    write(str(path), b"now")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["history.json"], b"now")
