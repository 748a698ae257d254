"""Who works on a board: the agent's lock, in this process, on a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import lock as module
from dlx_deploy.devices.agent.main import answer


def ask(root: Path, command: str, token: str, **fields: Any) -> dict[str, Any]:
    given = {"who": f"{token}@laptop", "purpose": "pushes digits 0.1.0", "since": "12:00", "owner": {"pid": 7}}
    return answer({"command": command, "path": str(root), "token": token, **given, **fields})


def test_a_second_one_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    assert ask(tmp_path, "lock", "ann") == {"ok": {"stolen_from": None}}
    assert ask(tmp_path, "lock", "bob")["fault"] == {
        "kind": "locked",
        "text": f"ann@laptop works on {tmp_path}: pushes digits 0.1.0, since 12:00",
        "owner": {"pid": 7},
        "who": "ann@laptop",
    }
    assert ask(tmp_path, "unlock", "bob") == {"ok": {"released": False}}
    assert ask(tmp_path, "unlock", "ann") == {"ok": {"released": True}}
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}


def test_it_is_taken_from_one_owner_and_no_other(tmp_path: Path) -> None:
    ask(tmp_path, "lock", "ann")
    for owner in ({"pid": 8}, {}):
        assert ask(tmp_path, "lock", "bob", steal_from=owner)["fault"]["kind"] == "locked"
    assert ask(tmp_path, "lock", "bob", steal_from={"pid": 7}) == {"ok": {"stolen_from": "ann@laptop"}}


def test_it_is_stale_after_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(tmp_path, "lock", "ann")
    monkeypatch.setattr(module, "_boot", lambda: "another")
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}


def test_it_is_stale_once_nothing_of_its_holder_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    ask(tmp_path, "lock", "ann")
    now += module.LEASE_S - 1
    assert ask(tmp_path, "working", "ann") == {"ok": {"pid": None}}  # renewed
    now += module.LEASE_S - 1
    assert "fault" in ask(tmp_path, "lock", "bob")
    now += 2
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}
    assert ask(tmp_path, "working", "ann")["fault"]["kind"] == "not-held"


def test_a_process_that_works_holds_it_on_and_is_ended_by_who_steals_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path, "lock", "ann")
    code = "print(flush=True); import time; time.sleep(60)"
    command = [sys.executable, "-c", code, f"{tmp_path}/releases/0/package.dlx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as working:
        assert working.stdout is not None
        working.stdout.readline()
        (tmp_path / "lock.pid").write_text(f"{working.pid}\n")
        now = module.time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: now + 2 * module.LEASE_S)
        assert ask(tmp_path, "lock", "bob")["fault"]["kind"] == "locked"
        assert ask(tmp_path, "lock", "bob", steal=True) == {"ok": {"stolen_from": "ann@laptop"}}
        assert working.wait(20) < 0


@pytest.mark.parametrize("name", ["x.part", "wheels/x.whl.part"])
def test_bytes_that_come_in_hold_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ask(tmp_path, "lock", "ann")
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 2 * module.LEASE_S)
    part = tmp_path / "incoming" / name
    part.parent.mkdir(parents=True)
    (part.parent / "a.part").symlink_to("renamed meanwhile")
    part.touch()
    assert ask(tmp_path, "lock", "bob")["fault"]["kind"] == "locked"
    os.utime(part, (0, 0))
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}


def test_another_process_of_that_number_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(tmp_path, "lock", "ann")
    (tmp_path / "lock.pid").write_text(str(os.getpid()))
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 2 * module.LEASE_S)
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"token": "ann"})])
def test_a_lock_that_was_cut_short_holds_nobody_back(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    assert ask(tmp_path, "lock", "bob") == {"ok": {"stolen_from": None}}


def test_a_holder_that_says_too_much_is_refused(tmp_path: Path) -> None:
    assert ask(tmp_path, "lock", "ann", who="a" * 2000)["fault"]["text"] == (
        "owner and who are too long; at most 1000 characters"
    )
