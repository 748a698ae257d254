"""Units on a board: the agent, in this process, with stand-ins for systemctl and sudo that write down their words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import units as module
from dlx_deploy.devices.agent.main import answer

NAME = "dlx-deploy-digits.service"
TEXT = "[Service]\nExecStart=/bin/true\n"


class Board:
    """One whose systemctl fails at what ``fails`` names."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bin, self.heard = folder / "digits", folder / "bin", folder / "heard"
        self.home, self.system, booted = folder / "home", folder / "system", folder / "booted"
        for room in (self.root, self.bin, self.home, self.system, booted):
            room.mkdir()
        (folder / "fails").touch()
        say = f'#!/bin/sh\necho "$(basename $0) $*" >> {self.heard}\n'
        fail = f'case "$*" in $(cat {folder / "fails"})) echo "no such thing"; exit 3;; esac\n'
        self.program("systemctl", say + fail + "echo active")
        self.program("journalctl", say + "echo first; echo the port is taken")
        self.program("loginctl", say + fail)
        monkeypatch.setattr(module, "BOOTED", str(booted))
        monkeypatch.setattr(module, "SYSTEM_UNITS", str(self.system))
        monkeypatch.setattr(module, "SETTLE_S", 0)
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        self.ask("lock", who="ann", purpose="pushes", since="12:00", owner={})

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def fails(self, pattern: str) -> None:
        (self.root.parent / "fails").write_text(pattern)

    def ask(self, command: str, **fields: Any) -> Any:
        given = {"path": str(self.root), "token": "t", "name": NAME, "scope": "user", "text": TEXT, **fields}
        said = answer({"command": command, **given})
        return said.get("ok") or said["fault"]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(tmp_path, monkeypatch)


def test_a_user_s_unit_is_written_started_and_taken_away(board: Board) -> None:
    unit = board.home / ".config/systemd/user" / NAME
    assert board.ask("service-facts")["services"] == []
    said = board.ask("install-service")
    assert said == {"unit": str(unit), "state": "active", "changed": True, "lingers": True}
    assert unit.read_text() == TEXT
    heard = board.heard.read_text().splitlines()
    calls = ["daemon-reload", f"enable {NAME}", f"restart {NAME}", f"is-active {NAME}"]
    assert heard[:4] == [f"systemctl --user {call}" for call in calls]
    assert heard[-1] == "loginctl enable-linger"
    assert board.ask("install-service")["changed"] is False
    assert board.ask("service-facts")["services"] == ["user"]
    assert board.ask("remove-service") == {"removed": [str(unit)]}
    assert not unit.exists()
    assert board.ask("remove-service") == {"removed": []}


def test_a_service_that_does_not_stay_up_is_told_with_its_last_words(board: Board) -> None:
    board.fails("*is-active*")
    fault = board.ask("install-service")
    assert fault["kind"] == "service-down"
    assert fault["text"] == f"{NAME} does not stay up: first | the port is taken"


def test_a_user_without_lingering_is_told(board: Board) -> None:
    board.fails("*linger*")
    assert board.ask("install-service")["lingers"] is False


def test_a_system_unit_goes_by_sudo_that_asks_for_no_password(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "getuid", lambda: 1000)
    monkeypatch.setattr(module.os, "access", lambda path, mode: str(path) != str(board.system))
    run = 'shift; case $1 in install) cp "$8" "$9";; *) "$@";; esac'
    board.program("sudo", f'#!/bin/sh\necho "sudo $*" >> {board.heard}\n{run}\n')
    said = board.ask("install-service", scope="system")
    assert said == {"unit": str(board.system / NAME), "state": "active", "changed": True, "lingers": True}
    assert (board.system / NAME).read_text() == TEXT
    assert "sudo -n systemctl daemon-reload" in board.heard.read_text()
    board.program("sudo", "#!/bin/sh\necho 'sudo: a password is required'; exit 1")
    fault = board.ask("install-service", scope="system", text=TEXT + "#\n")
    assert fault["kind"] == "not-root"
    assert "a system unit needs root, and sudo asks" in fault["text"]


def test_a_board_without_systemd_is_told_what_to_start(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOOTED", "/nowhere")
    assert board.ask("service-facts")["systemd"] is False
    fault = board.ask("install-service")
    assert fault["kind"] == "no-systemd"
    assert fault["text"].endswith("start packages by what it has: python3 PATH/current/package.dlx serve")


def test_what_systemctl_refuses_is_told(board: Board) -> None:
    board.fails("*daemon-reload*")
    fault = board.ask("install-service")
    assert (fault["kind"], fault["text"]) == (
        "systemd",
        "systemctl daemon-reload ended with exit code 3: no such thing",
    )


@pytest.mark.parametrize("name", ["x.service", "dlx-deploy-../x.service", "dlx-deploy-a b.service"])
def test_other_units_are_not_touched(name: str, board: Board) -> None:
    assert board.ask("install-service", name=name)["kind"] == "question"
    assert board.ask("install-service", scope="root")["kind"] == "question"
    assert board.ask("install-service", text="x" * (module.MOST_UNIT + 1))["kind"] == "question"
    assert not (board.home / ".config").exists()
    assert os.listdir(board.system) == []
