"""A package pushed to several boards at once, from the command line: boards in this process, by address."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices import many
from dlx_deploy.devices.agent import units
from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.pushing import bootstrap, serving, several
from dlx_deploy.devices.pushing.bootstrap import bring
from dlx_deploy.devices.pushing.wheels import Wheel
from dlx_deploy.devices.verifying import NEEDS
from dlx_deploy.errors import BoardUnreachable

from ...conftest import Here
from ..agent.test_wheels import wheel
from ..here_board import RUNTIME, HereBoard

INVENTORY = """
[boards.a]
ssh = "host-a"
groups = ["all"]
[boards.b]
ssh = "host-b"
groups = ["all"]
target = "rpi5"
[boards.c]
ssh = "host-c"
"""


class Logins:
    """Who answers at which host; a host that nobody is at cannot be reached."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boards = {host: HereBoard(folder / host) for host in ("host-a", "host-b", "host-d")}
        for host, board in self.boards.items():
            board.name = f"ssh://{host}"
        monkeypatch.setattr(many, "SshConnection", self.login)

    def login(self, address: Any) -> Any:
        logins = self

        class Login:
            def __enter__(self) -> HereBoard:
                if address.host not in logins.boards:
                    raise BoardUnreachable(f"{address} cannot be reached: there is no route to it; see that it is on")
                return logins.boards[address.host]

            def __exit__(self, *error: object) -> None:
                return None

        return Login()


@pytest.fixture
def logins(board: HereBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logins:
    (tmp_path / "boards.toml").write_text(INVENTORY)
    monkeypatch.chdir(tmp_path)
    return Logins(tmp_path, monkeypatch)


def test_each_board_has_its_own_result_and_the_worst_is_the_exit_code(
    logins: Logins, make_package: Any, here: Here
) -> None:
    logins.boards["host-d"].answers["selftest"] = (5, {}, "error: golden image 0 differs")
    done = here("push", make_package().path, "all", "c", "ssh://host-d", "--at-once", "1", "--json")
    boards = json.loads(done.out)["boards"]
    outcomes = [("a", "current", 0), ("b", "unfit", 4), ("c", "not reached", 4), ("ssh://host-d", "failed", 5)]
    assert [(one["board"], one["outcome"], one["exit_code"]) for one in boards] == outcomes
    assert done.code == 5
    assert "ssh://host-d: selftest ended with exit code 5: golden image 0 differs" in done.err
    assert done.err.rstrip().endswith("(and 2 more)")
    assert "✓ a current" in done.err
    assert "✗ c not reached" in done.err
    assert "see that it is on" in boards[2]["why"]
    assert logins.boards["host-a"].current == make_package().digest


def test_several_boards_are_a_table_and_one_is_none(logins: Logins, make_package: Any, here: Here) -> None:
    text = here("push", make_package().path, "a", "c").out
    header, _, first, second, blank, *more = text.splitlines()[1:]
    assert header.split() == ["board", "outcome", "current", "p90", "took", "why"]
    assert first.startswith(f"a      current      {make_package().digest[:12]}")
    assert (second.split()[:3], blank) == (["c", "not", "reached"], "")
    assert any("selftest passed in" in one for one in more)
    assert "board  outcome" not in here("push", make_package().path, "a").out


def test_a_rollback_goes_back_on_each(logins: Logins, make_package: Any, here: Here) -> None:
    for version in ("1.0.0", "2.0.0"):
        here("push", make_package(version).path, "a")
    here("push", make_package().path, "ssh://host-d")
    done = here("push", make_package().path, "a", "ssh://host-d", "c", "--rollback", "--json", "--at-once", "1")
    boards = json.loads(done.out)["boards"]
    assert boards[0]["to"]["version"] == "1.0.0"
    assert "has no release before the current one" in boards[1]["why"]
    assert "cannot be reached" in boards[2]["why"]
    assert done.code == 4
    single = here("push", make_package().path, "ssh://host-d", "--rollback")
    assert (single.code, "stays as it is: " in single.out) == (4, True)


def test_an_unknown_name_pushes_nowhere(logins: Logins, make_package: Any, here: Here) -> None:
    assert here("push", make_package().path, "a", "aall").code == 2
    assert logins.boards["host-a"].asked == []


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logins: Logins) -> list[Any]:
    """What pip is asked for; boards lack a runtime until one is brought."""
    asked: list[Any] = []
    data = wheel()
    path = tmp_path / "onnxruntime-1.20.1-py3-none-any.whl"
    path.write_bytes(data)

    def fetch(wanted: Any, tags: Any, interpreter: Any, folder: Path, source: Path | None) -> Any:
        asked.append((wanted, interpreter.arch, source))
        return (Wheel(path, hashlib.sha256(data).hexdigest()),)

    def bring_it(agent: Agent, *rest: Any) -> Any:
        agent.connection.claims["versions"] = RUNTIME  # type: ignore[attr-defined]
        return bring(agent, *rest)

    monkeypatch.setattr(bootstrap, "fetch_wheels", fetch)
    monkeypatch.setattr(several, "bring", bring_it)
    for board in logins.boards.values():
        board.interpreter = "python3"  # type: ignore[attr-defined]
        board.claims |= {"versions": {"python": "3.10.2", "numpy": "1.26.4", "pillow": "10.0"}, "glibc": "2.35"}
    return asked


def test_what_boards_lack_is_fetched_once_and_brought_before_they_are_pushed_to(
    logins: Logins, fetched: list[Any], make_package: Any, here: Here
) -> None:
    package, boards = make_package().path, ("a", "ssh://host-d", "--at-once", "1")
    assert here("push", package, *boards).code == 4
    planned = here("push", package, *boards, "--bootstrap", "--dry-run")
    assert "  would bring onnxruntime 1.20.1 (0.0 MiB)" in planned.out
    assert not list(logins.boards["host-a"].home.iterdir()), "a dry run changes nothing there"
    fetched.clear()
    done = here("push", package, *boards, "--bootstrap", "--json")
    assert done.code == 0, done.err
    assert fetched == [(("onnxruntime>=1.17,<1.33",), "x86_64", None)]
    for one, host in zip(json.loads(done.out)["boards"], ("host-a", "host-d"), strict=True):
        assert (one["outcome"], one["brought"]) == ("current", "onnxruntime 1.20.1 (0.0 MiB)")
        assert (logins.boards[host].root / "venv" / "bin" / "python3").exists()


def test_wheels_that_a_killed_push_left_are_swept(
    logins: Logins, fetched: list[Any], make_package: Any, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "dlx-wheelhouse-left").mkdir()
    os.utime(tmp_path / "dlx-wheelhouse-left", (0, 0))
    assert here("push", make_package().path, "a", "--bootstrap", "--dry-run").code == 0
    assert not list(tmp_path.glob("dlx-wheelhouse-*"))


def test_what_is_current_runs_on_what_it_ran_on_until_another_one_is_current(
    logins: Logins, fetched: list[Any], make_package: Any, here: Here
) -> None:
    board, package = logins.boards["host-a"], make_package().path
    board.answers["selftest"] = (5, {}, "error: golden image 0 differs")
    failed = here("push", package, "a", "--bootstrap")
    assert (failed.code, (board.root / "venv").is_symlink()) == (5, False)
    (tried,) = (board.root / "venvs").iterdir()
    assert any(f"{tried}/bin/python" in text for text in board.asked if "selftest" in text)
    board.answers.clear()
    board.claims["versions"] = {name: RUNTIME[name] for name in ("python", "numpy", "pillow")}
    board.lose = "use-environment"
    (lost,) = json.loads(here("push", package, "a", "--bootstrap", "--json").out)["boards"]
    assert (lost["outcome"], lost["exit_code"], (board.root / "venv").is_symlink()) == ("current", 4, False)
    assert lost["why"].startswith("it is current, and what it was checked with may not be used there; push again: ")
    board.lose = None
    board.claims["versions"] = {name: RUNTIME[name] for name in ("python", "numpy", "pillow")}
    assert here("push", package, "a", "--bootstrap", "--steal").code == 0
    assert (board.root / "venv").resolve() == tried


def test_a_runtime_that_is_too_old_is_brought_anew(
    logins: Logins, fetched: list[Any], make_package: Any, here: Here
) -> None:
    logins.boards["host-a"].claims["versions"] = {**RUNTIME, "onnxruntime": "1.10.0"}
    planned = here("push", make_package().path, "a", "--bootstrap", "--dry-run")
    assert (planned.code, "would bring onnxruntime 1.20.1" in planned.out) == (0, True)
    assert fetched == [(("onnxruntime>=1.17,<1.33",), "x86_64", None)]


def test_nothing_is_brought_to_a_board_that_is_unfit_otherwise(
    logins: Logins, fetched: list[Any], make_package: Any, here: Here
) -> None:
    logins.boards["host-a"].claims["arch"] = "aarch64"
    done = here("push", make_package().path, "a", "--bootstrap")
    assert (done.code, list(logins.boards["host-a"].home.iterdir())) == (4, [])
    assert "the package is for x86_64, the board is aarch64" in done.err
    logins.boards["host-a"].claims["arch"] = "armv7l"
    done = here("push", make_package().path, "a", "--bootstrap")
    assert "there are wheels for aarch64 and x86_64 alone" in done.err
    assert ": unfit" in done.out


def test_wheels_are_given_for_a_bootstrap_alone(logins: Logins, make_package: Any, here: Here) -> None:
    done = here("push", make_package().path, "a", "--wheels", "there")
    assert (done.code, "--wheels there is given without --bootstrap" in done.err) == (2, True)


def test_a_package_says_what_it_needs_beside_a_runtime(make_package: Any) -> None:
    package = make_package().package
    assert bootstrap.needed_by(package) == ("pillow",)
    assert {*bootstrap.READERS.values(), *NEEDS, "cuda-python"} <= {*bootstrap.MODULES}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logins: Logins) -> Path:
    """What systemctl is told, on boards that systemd runs."""
    heard, programs = tmp_path / "heard", tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "loginctl", "journalctl"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> {heard}\necho active; test ! -e {tmp_path}/fails\n'
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(units, "BOOTED", str(tmp_path))
    monkeypatch.setattr(units, "SETTLE_S", 0)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return heard


def test_a_service_runs_what_is_current_until_it_is_taken_away(
    logins: Logins, systemd: Path, make_package: Any, here: Here
) -> None:
    board, asked = logins.boards["host-a"], ("a", "--service", "user", "--serve-options", "--port 8080")
    planned = here("push", make_package().path, *asked, "--dry-run")
    assert f"package.dlx serve --port 8080\n    WorkingDirectory={board.root}\n" in planned.out
    assert not list(board.home.iterdir())
    done = here("push", make_package().path, *asked)
    unit = board.home / ".config/systemd/user/dlx-deploy-tiny.service"
    assert (done.code, f"service  {unit} is active" in done.out) == (0, True)
    assert f"ReadWritePaths=-{board.home}/.cache/dlx-deploy" in unit.read_text()
    systemd.unlink()
    assert here("push", make_package("2.0.0").path, "a").code == 0
    assert here("push", make_package().path, "a", "--rollback").code == 0
    assert systemd.read_text().count("systemctl --user restart dlx-deploy-tiny.service") == 2
    assert "removed" in here("push", make_package().path, "a", "--no-service").out
    assert not unit.exists()


def test_a_service_that_does_not_stay_up_is_exit_code_5_and_the_release_stays(
    logins: Logins, systemd: Path, make_package: Any, here: Here
) -> None:
    here("push", make_package().path, "a", "--service", "user")
    (systemd.parent / "fails").touch()
    done = here("push", make_package("2.0.0").path, "a")
    assert done.code == 5
    assert "it is current, and its service is not: dlx-deploy-tiny.service does not stay up: active" in done.err
    assert logins.boards["host-a"].current == make_package("2.0.0").digest


def test_a_rollback_whose_service_does_not_stay_up_is_told_with_the_rollback(
    logins: Logins, systemd: Path, make_package: Any, here: Here
) -> None:
    first, second = make_package(), make_package("2.0.0")
    here("push", first.path, "a", "--service", "user")
    here("push", second.path, "a")
    (systemd.parent / "fails").touch()
    done = here("push", second.path, "a", "--rollback", "--json")
    told = json.loads(done.out)
    assert (done.code, told["exit_code"], logins.boards["host-a"].current) == (5, 5, first.digest)
    assert (told["from"]["version"], told["to"]["version"]) == ("2.0.0", "1.0.0")
    assert told["service_why"].startswith("is not: dlx-deploy-tiny.service does not stay up")
    assert "a: it is back, and its service is not: " in done.err
    here("push", second.path, "a")
    text = here("push", second.path, "a", "--rollback").out
    assert "is back at tiny 1.0.0" in text
    assert "\n  service  is not: dlx-deploy-tiny.service does not stay up" in text


def test_a_connection_that_is_lost_behind_the_change_unmakes_nothing(
    logins: Logins, systemd: Path, make_package: Any, here: Here
) -> None:
    board, first, second = logins.boards["host-a"], make_package(), make_package("2.0.0")
    here("push", first.path, "a", "--service", "user")
    board.lose = "restart-service"
    (told,) = json.loads(here("push", second.path, "a", "--json").out)["boards"]
    assert (told["outcome"], told["current"], told["exit_code"]) == ("current", second.digest, 4)
    assert told["why"] == "it is current, and its service may not be: the connection broke off"
    board.lose, board.broken = "restart-service", False
    back = here("push", second.path, "a", "--rollback")
    assert (back.code, "is back at tiny 1.0.0" in back.out) == (4, True)
    board.lose = None
    assert here("push", second.path, "a").code == 0
    for moment, text in {
        "+rollback": "whether it went back is not known",
        "+finish": "whether it is current there",
    }.items():
        board.lose, board.broken = moment, False
        options = ["--rollback"] if moment == "+rollback" else []
        lost = here("push", second.path, "a", "--steal", *options)
        assert (lost.code, text in lost.err, "stays as it is" in lost.out) == (4, True, False)


def test_what_can_be_no_service_is_refused(
    logins: Logins, systemd: Path, make_package: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package().path
    for words, text in {
        ("--service", "root"): "--service is 'root'; must be user (no root needed) or system",
        ("--service", "user", "--no-service"): "--service user and --no-service are given; must be one of them",
        ("--serve-options", "--port 1"): "--serve-options '--port 1' is given without --service",
        ("--service", "user", "--serve-options", "'"): "No closing quotation; quote it as a shell would take it",
        ("--service", "user", "--serve-options", "--prot 1"): "'--prot' is no option of serve; nearest",
    }.items():
        done = here("push", package, "a", *words)
        assert (done.code, text in done.err) == (2, True), done.err
    monkeypatch.setattr(serving, "SERVES", "dlx_runtime/none.py")
    assert "its runtime has no serve yet" in here("push", package, "a", "--service", "user").err


def test_a_board_without_systemd_is_not_pushed_to_for_a_service(
    logins: Logins, make_package: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BOOTED", "/nowhere")
    done = here("push", make_package().path, "a", "--service", "user")
    assert (done.code, list(logins.boards["host-a"].home.iterdir())) == (4, [])
    assert "systemd does not run it, so it can have no unit; leave --service away" in done.err
