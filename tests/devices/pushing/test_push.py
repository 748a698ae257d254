"""A package pushed to a board in this process: what becomes current, what does not, and what a break leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.devices.agent import lock
from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.measuring import Manners
from dlx_deploy.devices.pushing import locking
from dlx_deploy.devices.pushing.locking import is_gone, locked
from dlx_deploy.devices.pushing.push import Pushable, Pushed, PushOptions, default_path, push, read_pushable, roll_back
from dlx_deploy.errors import BoardLost, BoardRefused, BoardUnfit, ConfigError
from dlx_deploy.report.pushes import PushesView
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.trust import Trust

from ..here_board import HereBoard

OPTIONS = PushOptions()


def push_it(given: Pushable, board: HereBoard, **changes: Any) -> Pushed:
    return push(given, board, msgspec.structs.replace(OPTIONS, **changes), lambda text: None)


def files(board: HereBoard) -> set[str]:
    return {str(path.relative_to(board.root)) for path in board.root.rglob("*")} if board.root.exists() else set()


def view(pushed: Pushed) -> PushesView:
    return PushesView("tiny", "1.0.0", "cpu-x86_64", (pushed,))


def test_a_package_becomes_current_after_its_self_test(board: HereBoard, make_package: Any) -> None:
    given = make_package()
    pushed = push_it(given, board)
    assert (pushed.outcome, pushed.exit_code, pushed.current, pushed.before) == ("current", 0, given.digest, None)
    assert board.current == given.digest
    root, release = board.root, f"{board.root}/releases/{given.digest}"
    asked = [text for text in board.asked if text != "close"]
    ran = f"sh {root}/lock.pid {pushed.facts.executable if pushed.facts else ''} {release}/package.dlx selftest --json"
    (selftest,) = (text for text in asked if "selftest" in text)
    assert selftest.endswith(ran)
    assert asked.index(f"send {given.path.name}") < asked.index("install") < asked.index(selftest)
    assert asked.index(selftest) < asked.index("finish")
    assert asked[-1] == "finish"  # which gives the lock back
    record = json.loads(Path(release, "release.json").read_text())
    assert (record["version"], record["file"], record["state"]) == ("1.0.0", given.path.name, "passed")
    assert record["checks"] == {"selftest": {"exit_code": 0, "answer": {"verdict": "pass"}}}
    assert files(board) == {
        *("releases", f"releases/{given.digest}", "current", "history.json", ".guard"),
        *(f"releases/{given.digest}/{name}" for name in ("package.dlx", "release.json")),
    }
    again = push_it(given, board)
    assert (again.outcome, again.bytes_there) == ("current", given.size_bytes)
    assert sum(text.startswith("send") for text in board.asked) == 1
    assert f"  current  {given.digest[:12]}; " in view(again).text


def test_a_dry_run_changes_nothing(board: HereBoard, make_package: Any) -> None:
    pushed = push_it(make_package(), board, dry_run=True)
    assert list(board.home.iterdir()) == []
    assert board.asked == ["look"]
    assert pushed.outcome == "would be current"
    text = view(pushed).text
    assert f", install releases/{pushed.digest[:12]}…, run selftest\n  and make it current; nothing was changed" in text


def test_an_unfit_board_is_left_alone(board: HereBoard, make_package: Any) -> None:
    board.claims["arch"] = "aarch64"
    pushed = push_it(make_package(), board)
    assert (pushed.outcome, pushed.exit_code, list(board.home.iterdir())) == ("unfit", 4, [])
    assert view(pushed).data["boards"][0]["outcome"] == "unfit"
    failure = view(pushed).failure
    assert failure is not None
    assert failure.exit_code == 4
    assert "ssh://user@board: architecture: the package is for x86_64, the board is aarch64" in str(failure)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("selftest", 5, "golden image 0 differs"),
        ("bench", 3, "p90 is 9 ms, budget 5"),
        ("bench", 6, "undecided"),
        ("selftest", 139, ""),
    ],
)
def test_what_fails_there_leaves_what_was_current(
    board: HereBoard, make_package: Any, command: str, code: int, words: str
) -> None:
    budget = {**make_package().package.meta["budgets"], "max_latency_p90_ms": 5.0}
    first, second = make_package(), make_package("2.0.0", budgets=budget)
    push_it(first, board)
    board.answers[command] = (code, {}, f"error: {words}")
    pushed = push_it(second, board)
    assert (pushed.outcome, pushed.exit_code, board.current) == ("failed", code, first.digest)
    record = json.loads((board.root / "releases" / second.digest / "release.json").read_text())
    assert (record["state"], record["why"]) == ("failed", f"{command} ended with exit code {code}: {words}")
    failure = view(pushed).failure
    assert failure is not None
    assert str(failure).endswith(f"exit code {code}: {words}; current there stays {first.digest[:12]}")
    assert failure.exit_code == (code if code < 10 else 4)
    board.answers.clear()  # what was wrong on the board is repaired: nothing is sent again
    assert push_it(second, board).outcome == "current"
    assert sum(text.startswith("send") for text in board.asked) == 2


def test_a_failed_release_goes_with_the_next_push_that_passes(board: HereBoard, make_package: Any) -> None:
    bad, good = make_package("2.0.0"), make_package()
    board.answers["selftest"] = (5, {}, "error: golden image 0 differs")
    assert "no release is current there" in str(view(push_it(bad, board)).failure)
    board.answers.clear()
    assert push_it(good, board).removed == (bad.digest,)


def test_the_current_release_that_fails_now_stays_and_is_said_so(board: HereBoard, make_package: Any) -> None:
    given = make_package()
    push_it(given, board)
    board.answers["selftest"] = (5, {}, "error: golden image 0 differs")
    assert "it is current there, as it was: push --rollback" in str(view(push_it(given, board)).failure)
    assert board.current == given.digest


def test_budgets_are_judged_and_may_be_left(board: HereBoard, make_package: Any) -> None:
    budget = {**make_package().package.meta["budgets"], "max_latency_p90_ms": 5.0}
    given = make_package(budgets=budget)
    board.answers["bench"] = (0, {"verdict": "pass", "latency": {"p90_ms": 1.25}}, "")
    pushed = push_it(given, board)
    assert [step.name for step in pushed.steps] == ["selftest", "bench"]
    told: list[tuple[float, float, str]] = []
    push(given, board, OPTIONS, lambda text: None, lambda done, total, text="": told.append((done, total, text)))
    assert told == [(0, 2, "selftest"), (1, 2, "bench")]
    assert ", p90 1.25 ms" in view(pushed).text
    assert board.asked[board.asked.index("measures: bench of a push") + 1] == "working", "the lock is kept meanwhile"
    assert [step.name for step in push_it(given, board, bench=False).steps] == ["selftest"]


def test_an_engine_is_built_before_the_self_test(board: HereBoard, make_package: Any) -> None:
    target = {"name": "jetson-orin-nano-8gb", "kind": "tensorrt", "arch": "aarch64", "title": "Orin Nano"}
    given = make_package(target=target, recipe={"seed": 0, "backends": ["tensorrt", "onnxruntime-cpu"]})
    versions = {"python": "3.10.12", "numpy": "1.26", "tensorrt": "10.3.0", "cuda-python": "12.6"}
    board.claims.update(arch="aarch64", gpus=["a Jetson's"], versions=versions)
    assert [step.name for step in push_it(given, board).steps] == ["engine", "selftest"]


def test_rollback_goes_to_the_release_before(board: HereBoard, make_package: Any) -> None:
    first, second = make_package(), make_package("2.0.0")
    push_it(first, board)
    push_it(second, board)
    told = roll_back(board, PushOptions(path=default_path(first.package)), lambda text: None)
    assert (told["from"]["version"], told["to"]["version"], board.current) == ("2.0.0", "1.0.0", first.digest)


def test_a_signature_goes_with_the_package_and_the_package_is_not_asked_for_it(
    board: HereBoard, make_package: Any, tmp_path: Path
) -> None:
    package = tmp_path / "tiny.dlx"
    package.write_bytes(make_package().path.read_bytes())
    package.with_name("tiny.dlx.sig").write_bytes(b"signed")
    push_it(read_pushable(package, None), board)
    assert (board.root / "current" / "package.dlx.sig").read_bytes() == b"signed"
    assert not any("--require-signature" in text or "--public-key" in text for text in board.asked)


MOMENTS = ["look", "lock", "+lock", "install", "+install", "selftest", "finish", "+finish"]


@pytest.mark.parametrize("moment", [0, 1, 100, 5000, -1, *MOMENTS])
def test_a_connection_that_breaks_off_anywhere_costs_nothing(
    board: HereBoard, make_package: Any, moment: int | str
) -> None:
    """What is current is whole and one of the two; what came is not sent again; the next push ends well."""
    first, second = make_package(), make_package("2.0.0")
    push_it(first, board)
    if isinstance(moment, int):
        board.cut = moment % (second.size_bytes + 1)
    else:
        board.lose = moment
    with pytest.raises(BoardLost):
        push_it(second, board)
    assert board.current == (second if moment == "+finish" else first).digest
    board.lose, board.asked = None, []
    # this process is the one that held the lock, and lives: another one would be refused until the lease ends
    pushed = push_it(second, board, manners=Manners(steal=True))
    assert (pushed.outcome, pushed.current, pushed.before) == ("current", second.digest, first.digest)
    come = moment in MOMENTS[3:]
    assert [text for text in board.asked if text.startswith("send")] == [f"send {second.path.name}"] * (not come)
    assert not list(board.root.glob("releases/.new-*"))
    assert not (board.root / "incoming").exists()


def test_a_second_push_is_refused_with_the_name_of_the_first(
    board: HereBoard, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, given, said = Agent(board, default_path(make_package().package)), make_package(), []
    with (
        locked(agent, "pushes tiny 9", Manners(), lambda text: None),
        pytest.raises(
            BoardRefused, match=r"\w+@.* works on .*/tiny: pushes tiny 9, since 20.*; wait for them with --wait"
        ),
    ):
        push_it(given, board)
    with locked(agent, "pushes tiny 9", Manners(), lambda text: None) as held:
        monkeypatch.setattr(locking.time, "sleep", lambda s: agent.ask("unlock", token=held.token))
        push(given, board, PushOptions(manners=Manners(wait_s=60)), said.append)
    assert "waiting: " in said[0]
    assert board.current == given.digest


def test_a_push_of_this_machine_that_died_holds_nobody_back(
    board: HereBoard, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    me = locking._me()
    monkeypatch.setattr(locking, "_me", lambda: {**me, "pid": pid})
    board.lose = "selftest"
    with pytest.raises(BoardLost):
        push_it(make_package(), board)
    board.lose = None
    assert push_it(make_package("2.0.0"), board).outcome == "current"  # at once
    assert not is_gone({**me, "pid": os.getpid()})
    assert not is_gone({**me, "host": "another", "pid": pid})
    assert not is_gone({**me, "pids": "pid:[1]", "pid": pid})
    assert is_gone({**me, "boot": "an earlier one"})
    monkeypatch.setattr(locking, "_me", lambda: {**me, "boot": "", "pids": ""})
    assert not is_gone({**me, "boot": "", "pids": "", "pid": pid}), "of another machine of that name, perhaps"


def test_the_lock_of_one_who_died_is_taken_from_them_alone(
    board: HereBoard, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(board, default_path(make_package().package))
    dead = {**locking._me(), "pid": 0}
    lock_it = {"who": "dead@here", "purpose": "pushes", "since": "12:00"}
    agent.ask("lock", token="d", owner=dead, **lock_it)

    def judge(owner: Any) -> bool:
        if owner == dead:  # while it is judged, somebody else is faster
            agent.ask("lock", token="f", owner={"pid": 1}, steal_from=dead, **{**lock_it, "who": "fast@there"})
        return bool(owner == dead)

    monkeypatch.setattr(locking, "is_gone", judge)
    with pytest.raises(BoardRefused, match="fast@there works on"), locked(agent, "x", Manners(), lambda text: None):
        raise AssertionError("it is held")


def test_a_board_that_was_started_anew_in_the_middle_goes_on(
    board: HereBoard, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.lose = "selftest"
    with pytest.raises(BoardLost):
        push_it(make_package(), board)
    board.lose = None
    with pytest.raises(BoardRefused, match=r"pushes tiny 1\.0\.0"):
        push_it(make_package(), board)
    monkeypatch.setattr(lock, "_boot", lambda: "after the reboot")
    assert push_it(make_package(), board).outcome == "current"
    assert sum(text.startswith("send") for text in board.asked) == 1


def test_a_full_disk_is_said_with_its_remedy(
    board: HereBoard, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def full(source: Any, target: Any) -> None:
        if "releases" in str(target):
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    push_it(make_package(), board)
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(BoardRefused, match="no space is left there; remove what is not needed"):
        push_it(make_package("2.0.0"), board)
    assert board.current == make_package().digest


def test_no_room_while_it_is_sent_is_said_so(board: HereBoard, make_package: Any) -> None:
    def full(*arguments: Any) -> None:
        raise BoardUnfit("ssh://user@board: OSError: [Errno 28] No space left on device (Python 3.10 there)")

    board.send = full  # type: ignore[method-assign]
    with pytest.raises(BoardUnfit, match=r"no room is left on the file system of /.*/tiny; make some"):
        push_it(make_package(), board)


def test_a_name_that_is_no_folder_asks_for_a_path(make_package: Any) -> None:
    with pytest.raises(ConfigError, match=r"'\.\./etc' names no folder on a board; give one: ssh://user@board/~/my"):
        default_path(make_package(name="../etc").package)


def test_a_signature_that_cannot_be_read_is_refused(make_package: Any, tmp_path: Path) -> None:
    package = tmp_path / "tiny.dlx"
    package.write_bytes(make_package().path.read_bytes())
    (tmp_path / "tiny.dlx.sig").mkdir()
    with pytest.raises(ConfigError, match="is no signature that can be sent"):
        read_pushable(package, None)


def test_a_package_without_the_signature_that_is_asked_for_is_not_pushed(make_package: Any, tmp_path: Path) -> None:
    package = tmp_path / "tiny.dlx"
    package.write_bytes(make_package().path.read_bytes())
    with pytest.raises(PackageError, match=r"a signature is required, and .*tiny\.dlx\.sig is not there"):
        read_pushable(package, Trust(public_key=tmp_path / "maker.pem"))
