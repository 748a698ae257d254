"""One measures on a board at a time: the agent's measuring lock, a process for each who asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import measuring as module
from dlx_deploy.devices.agent.main import answer

CODE = """
import json, sys
from dlx_deploy.devices.agent import measuring
from dlx_deploy.devices.agent.main import answer
measuring.FOLDERS = (sys.argv[1],)
measuring.HEARTBEAT_S = measuring.POLL_S = 0.05
measuring.STEAL_S = 5.0
print(json.dumps(answer(json.loads(sys.argv[2]))))
"""


class Asker:
    """Someone whose program asks for the lock; what it hears."""

    def __init__(self, folder: Path, who: str, **fields: Any) -> None:
        asked = {"command": "measure", "who": who, "purpose": "bench", "since": "12:00", "wait_s": 0, **fields}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", CODE, str(folder), json.dumps(asked)]
        self.process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]

    def heard(self, name: str) -> Any:
        """What it is told under this name, once it is."""
        for line in self.process.stderr:
            values = json.loads(line[len(module.MARK) :])
            if name in values:
                return values[name]
        raise AssertionError(f"it is told nothing of {name}")

    def ends(self) -> Any:
        """How it ended; it goes away if it is still there."""
        return json.loads(self.process.communicate(timeout=20)[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    return tmp_path


@pytest.fixture
def asks(folder: Path) -> Iterator[Callable[..., Asker]]:
    made: list[Asker] = []

    def ask(who: str, **fields: Any) -> Asker:
        made.append(Asker(folder, who, **fields))
        return made[-1]

    yield ask
    for one in made:
        one.process.kill()
        one.process.communicate()


def test_a_second_one_hears_who_measures_and_for_what(asks: Callable[..., Asker], folder: Path) -> None:
    ann = asks("ann@laptop")
    holds = ann.heard("holds")
    text = "ann@laptop measures on it (bench), since 12:00"
    assert asks("bob").ends() == {"fault": {"kind": "measuring", "text": text, "who": "ann@laptop"}}
    assert answer({"command": "release", "pid": os.getpid()}) == {"ok": {"released": False}}
    assert answer({"command": "release", "pid": holds}) == {"ok": {"released": True}}
    assert ann.ends() == {"ok": {"ended": "released"}}
    assert [path.name for path in folder.iterdir()] == [module.NAME], "nothing is said of one who holds no longer"


def test_who_waits_gets_it_when_the_holder_is_gone(asks: Callable[..., Asker]) -> None:
    ann = asks("ann")
    ann.heard("holds")
    bob = asks("bob", wait_s=20)
    assert bob.heard("waits").startswith("ann measures on it")
    ann.process.kill()  # as a board that starts anew, or a connection that breaks
    assert bob.heard("holds") == bob.process.pid
    assert bob.ends() == {"ok": {"ended": "gone"}}


def test_who_waits_and_goes_away_waits_no_longer(asks: Callable[..., Asker]) -> None:
    asks("ann").heard("holds")
    bob = asks("bob", wait_s=20)
    bob.heard("waits")
    assert bob.ends() == {"ok": {"ended": "gone"}}


def test_it_can_be_stolen_and_the_first_one_is_told(asks: Callable[..., Asker]) -> None:
    ann = asks("ann")
    ann.heard("holds")
    bob = asks("bob", steal=True)
    assert bob.heard("holds") == bob.process.pid
    assert ann.ends() == {"ok": {"ended": "stolen"}}
    assert asks("eve").ends()["fault"]["who"] == "bob"


def test_a_note_of_another_user_s_process_ends_nobody(
    asks: Callable[..., Asker], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks("ann").heard("holds")
    (note,) = folder.glob(f"{module.NAME}.*")
    assert module._holder(str(folder / module.NAME))["who"] == "ann"
    monkeypatch.setattr(module.os, "stat", lambda path: os.stat_result((0, 0, 0, 0, os.getuid() + 1, 0, 0, 0, 0, 0)))
    assert module._holder(str(folder / module.NAME)) == {}
    monkeypatch.undo()
    values = json.loads(note.read_text())
    note.write_text(json.dumps({**values, "pid": os.getpid()}))
    assert module._holder(str(folder / module.NAME)) == {}, "that process holds no lock"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": "x"}', '{"pid": 1e999}'])
def test_a_damaged_note_says_nothing(text: str, folder: Path) -> None:
    (folder / f"{module.NAME}.0").write_text(text)
    assert module._holder(str(folder / module.NAME)) == {}


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / module.NAME)
    asked = {"command": "measure", "who": "ann", "purpose": "bench", "since": "12:00", "wait_s": 0}
    text = f"{folder / module.NAME} is there and no file; remove it"
    assert answer(asked)["fault"] == {"kind": "system", "text": text}
    os.unlink(folder / module.NAME)
    (folder / module.NAME).symlink_to(folder / "elsewhere")
    assert "Too many levels of symbolic links" in str(answer(asked)["fault"])
    folder.chmod(0o755)
    assert "is a folder that every user may write" in str(answer(asked)["fault"])
