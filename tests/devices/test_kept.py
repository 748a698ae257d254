"""What lies on a board by its digest: sources that are sent are run here, in a folder that is the board's home."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices import kept
from dlx_deploy.devices.kept import KEPT, Kept
from dlx_deploy.devices.sent import keeping, unpacking
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.errors import InputError


class Home:
    """The board at the other end: the working folder. ``sent``: what went there."""

    name = "ssh://user@board"

    def __init__(self) -> None:
        self.sent: list[str] = []

    def python(self, source: str, argument: Any, **options: Any) -> Any:
        room: dict[str, Any] = {}
        exec(compile(source, "<sent>", "exec"), room)
        return room["main"](argument)

    def send(self, path: Path, remote: str, digest: str, progress: object) -> None:
        self.sent.append(remote)
        Path(remote).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, remote)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return Home()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"what {name} holds")
    return {"0.png": tmp_path / "a", "1/0.png": tmp_path / "b"}


def put(home: Home, files: dict[str, Path]) -> Path:
    connection: Any = home
    return Path(Kept(connection, lambda text: None).put_all(files))


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "unreadable"])
def test_a_folder_that_is_not_what_was_put_is_made_again(home: Home, files: dict[str, Path], damage: str) -> None:
    there = put(home, files)
    assert put(home, files) == there
    assert len(home.sent) == 1, "and not again"
    one = there / "1/0.png"
    if damage == "changed":
        one.write_text("what c holds")
    elif damage == "missing":
        one.unlink()
    elif damage == "more":
        (there / "1/1.png").touch()
    else:
        one.unlink()
        one.symlink_to("nowhere")
    assert put(home, files) == there
    found = {str(path.relative_to(there)): path.read_text() for path in there.rglob("*") if path.is_file()}
    assert found == {"0.png": "what a holds", "1/0.png": "what b holds"}
    assert (len(home.sent), os.listdir(KEPT)) == (2, [there.name])


def test_what_cannot_be_read_or_changes_meanwhile_is_told(
    home: Home, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = kept._pack

    def changed(path: Path, files: Mapping[str, Path]) -> None:
        files["0.png"].write_text("another")
        packed(path, files)

    monkeypatch.setattr(kept, "_pack", changed)
    with pytest.raises(BoardError, match=r"^ssh://user@board: 2 files came there, and are not those of here: one was"):
        put(home, files)
    files["1/0.png"].unlink()
    with pytest.raises(InputError, match=r"/b: cannot be read \(No such file or directory\); all files that go to a b"):
        put(home, files)


@pytest.mark.parametrize("damage", ["vanished", "a folder", "a pipe"])
def test_a_file_that_goes_while_it_is_packed_is_told(
    home: Home, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    packed, path = kept._pack, files["1/0.png"]

    def meanwhile(archive: Path, files: Mapping[str, Path]) -> None:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage == "a pipe":
            os.mkfifo(path)
        packed(archive, files)

    monkeypatch.setattr(kept, "_pack", meanwhile)
    with pytest.raises(InputError, match=r"/b: cannot be read \(.*\); all files that go to a board must be"):
        put(home, files)
    connection: Any = home
    with pytest.raises(InputError, match=r"/b: cannot be read \(.*\); all files that go to a board must be"):
        Kept(connection, lambda text: None).put(path)


def test_a_full_disk_here_is_no_fault_of_a_file(
    home: Home, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", full)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left on device"):
        put(home, files)


def test_of_two_that_unpack_at_once_the_second_goes_on(
    home: Home, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    asked = {"folder": "x.files", "archive": "x.zip", "digest": unpacking.digest_of(files)}
    unpack = unpacking.unpack

    def beside(archive: str, folder: str) -> None:
        monkeypatch.setattr(unpacking, "unpack", unpack)
        unpack(archive, folder)
        monkeypatch.setattr(os, "getpid", lambda: 7)
        assert unpacking.main(asked) == {"there": True}

    monkeypatch.setattr(unpacking, "unpack", beside)
    assert unpacking.main(asked) == {"there": True}
    assert os.listdir() == ["x.files"], "nothing is left aside"


def test_a_removal_that_is_ended_leaves_no_part_under_the_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("kept") / "x.files").mkdir(parents=True)
    (Path("kept") / "x.files/0.png").write_bytes(bytes(10))
    asked = {"folder": "kept", "names": [], "limit_bytes": 5}
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)  # it ends just there
        assert keeping.main(asked) == {"removed": ["x.files"]}
    (left,) = os.listdir("kept")
    assert left.startswith("x.files.")
    assert left.endswith(".gone")
    assert keeping.main({**asked, "limit_bytes": 1 << 30}) == {"removed": []}
    assert os.listdir("kept") == []


UNPACKING = """
import os, signal, sys
from dlx_deploy.devices.sent import unpacking
unpacking.zipfile.ZipFile.extractall = lambda opened, folder: os.kill(os.getpid(), signal.SIGKILL)
unpacking.main({"folder": "kept/x.files", "archive": "kept/x.zip", "digest": ""})
"""


def test_what_a_killed_unpacking_leaves_goes_with_the_next_file(home: Home) -> None:
    os.mkdir("kept")
    with zipfile.ZipFile("kept/x.zip", "w") as archive:
        archive.writestr("0.png", "a")
    assert subprocess.run([sys.executable, "-c", UNPACKING], check=False).returncode == -9
    (left,) = Path("kept").glob("x.files.*")
    asked = {"folder": "kept", "names": ["x.zip"], "limit_bytes": 1 << 30}
    assert keeping.main(asked) == {"removed": []}
    assert left.is_dir(), "as it may not be locked yet"
    os.utime(left, (0, 0))
    other = os.open(left, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert keeping.main(asked) == {"removed": []}
    assert left.is_dir(), "somebody is at it"
    os.close(other)
    assert keeping.main(asked) == {"removed": []}
    assert os.listdir("kept") == ["x.zip"]


def test_a_folder_is_locked_while_it_is_unpacked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def extract(opened: Any, folder: str) -> None:
        os.utime(folder, (0, 0))
        assert keeping.main({"folder": "kept", "names": [], "limit_bytes": 1 << 30}) == {"removed": []}
        assert os.path.isdir(folder)
        seen.append(folder)

    seen: list[str] = []
    os.mkdir("kept")
    zipfile.ZipFile("kept/x.zip", "w").close()
    monkeypatch.setattr(zipfile.ZipFile, "extractall", extract)
    unpacking.main({"folder": "kept/x.files", "archive": "kept/x.zip", "digest": ""})
    assert seen == [f"kept/x.files.{os.getpid()}"]
