"""A signature that is asked for is verified on the board too, by the sender's code, before anything there is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install '.[signatures]'")

from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.pushing.checks import verify_there
from dlx_deploy.devices.pushing.locking import Manners, locked
from dlx_deploy.devices.pushing.push import Pushable, Pushed, PushOptions, default_path, push, read_pushable, roll_back
from dlx_deploy.errors import BoardError, BoardRefused, ConfigError
from dlx_deploy.report.pushes import PushesView
from dlx_deploy.runtime.package.trust import Trust

from ...conftest import Here
from ...runtime.package.signatures import (
    bundle,
    certificate_pem,
    make_certificate,
    make_key,
    public_pem,
    statement,
    write,
)
from ..fake_board import FakeBoard
from ..here_board import RUNTIME, HereBoard

KEY = make_key()
VERIFIES = {**RUNTIME, "cryptography": "41.0.7"}


def signed(folder: Path, package: Path, key: Any = KEY, chain: Any = None) -> Path:
    """A copy of ``package`` with a signature beside it."""
    made = Path(shutil.copy(package, folder / "tiny.dlx"))
    write(folder / "tiny.dlx.sig", json.dumps(bundle(statement(made.read_bytes()), key, chain)).encode())
    return made


@pytest.fixture
def given(tmp_path: Path, make_package: Any) -> Pushable:
    trust = Trust(public_key=write(tmp_path / "p.pem", public_pem(KEY)))
    return read_pushable(signed(tmp_path, make_package("2.0.0").path), trust)


def push_it(given: Pushable, board: HereBoard) -> Pushed:
    return push(given, board, PushOptions(), lambda text: None)


def test_it_is_verified_there_before_the_package_runs(board: HereBoard, given: Pushable) -> None:
    board.claims["versions"] = VERIFIES
    pushed = push_it(given, board)
    assert (pushed.outcome, [step.name for step in pushed.steps]) == ("current", ["signature", "selftest"])
    assert pushed.facts is not None
    assert board.verifier == pushed.facts.executable, "the Python that has the libraries"
    order = [text.split()[-2] if " " in text and "selftest" in text else text for text in board.asked]
    assert order.index("install") < order.index("verify") < order.index("selftest")
    record = json.loads((board.root / "current" / "release.json").read_text())
    assert record["checks"]["signature"]["answer"]["by"].startswith("key ")
    assert given.verification is not None
    assert f"signature: by {given.verification.by}, verified here" in PushesView("t", "2", "c", (pushed,)).text


@pytest.mark.parametrize("what", ["package", "signature", "none"])
def test_what_was_changed_there_is_refused_unseen(
    board: HereBoard, given: Pushable, make_package: Any, what: str
) -> None:
    board.claims["versions"] = VERIFIES
    first = make_package()
    push_it(first, board)
    release = board.root / "releases" / given.digest

    def meddle() -> None:
        if what == "package":
            (release / "package.dlx").write_bytes(first.path.read_bytes())
        elif what == "signature":
            other = bundle(statement(given.path.read_bytes()), make_key())
            (release / "package.dlx.sig").write_text(json.dumps(other))
        else:
            (release / "package.dlx.sig").unlink()

    board.asked, board.meddle = [], meddle
    pushed = push_it(given, board)
    assert (pushed.outcome, pushed.exit_code, board.current) == ("failed", 2, first.digest)
    words = {"package": "has SHA-256", "signature": "is signed by the key", "none": "package.dlx.sig is not there"}
    assert words[what] in pushed.why
    assert not any("package.dlx" in text and "selftest" in text for text in board.asked), "none of its code is run"
    failure = PushesView("tiny", "2.0.0", "cpu-x86_64", (pushed,)).failure
    assert failure is not None
    assert failure.exit_code == 2
    assert str(failure).endswith(f"; current there stays {first.digest[:12]}")


def test_a_rollback_goes_to_what_is_signed_alone(
    board: HereBoard, given: Pushable, make_package: Any, tmp_path: Path
) -> None:
    board.claims["versions"] = VERIFIES
    push_it(make_package(), board)
    push_it(given, board)
    back, before = PushOptions(path=default_path(given.package)), board.current
    with pytest.raises(ConfigError, match=r"does not go back to the release \w{12}: .*package\.dlx\.sig is not there"):
        roll_back(board, back, lambda text: None, given.verification)
    assert board.current == before
    (tmp_path / "third").mkdir()
    trust = Trust(public_key=tmp_path / "p.pem")
    push_it(read_pushable(signed(tmp_path / "third", make_package("3.0.0").path), trust), board)
    told = roll_back(board, back, lambda text: None, given.verification)
    assert (told["to"]["version"], board.current) == ("2.0.0", given.digest)


def test_a_rollback_is_verified_by_the_python_that_is_named(
    board: HereBoard, given: Pushable, make_package: Any
) -> None:
    board.claims["versions"] = VERIFIES
    push_it(given, board)
    push_it(make_package(), board)
    board.verifier = ""
    back = PushOptions(path=default_path(given.package), python="~/env/bin/python")
    roll_back(board, back, lambda text: None, given.verification)
    assert (board.verifier, board.current) == (str(board.home / "env/bin/python"), given.digest)


def test_a_rollback_goes_to_what_was_verified_alone(board: HereBoard, make_package: Any) -> None:
    given = make_package()
    push_it(given, board)
    push_it(make_package("2.0.0"), board)
    agent = Agent(board, default_path(given.package))
    asked = locked(agent, "rolls back", Manners(), lambda text: None)
    with asked as held, pytest.raises(BoardRefused, match="would go back to"):
        agent.ask("rollback", token=held.token, digest="0" * 64)


@pytest.mark.parametrize(
    "answer",
    [
        {"fault": {"kind": "PackageError", "exit_code": 0, "said": "not signed"}},
        {"fault": {"exit_code": 2, "said": "not signed"}},
        {"fault": {}},
        {"fault": {"kind": "PackageError", "exit_code": "x", "said": "y"}},
        {"fault": "bad", "by": "me"},
        {"by": ""},
        {},
    ],
)
def test_an_answer_of_a_board_is_no_proof_unless_it_is_one(
    board: HereBoard, given: Pushable, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(HereBoard, "python", lambda *given, **named: answer)
    assert given.verification is not None
    with pytest.raises(BoardError, match="who signed"):
        verify_there(board, "python3", "package.dlx", given.verification)


@pytest.mark.parametrize(
    ("has", "seen"), [({}, "there is none"), ({"cryptography": "2.8"}, "there is cryptography 2.8")]
)
def test_a_board_that_cannot_verify_is_left_alone(board: HereBoard, given: Pushable, has: Any, seen: str) -> None:
    board.claims["versions"] = {**RUNTIME, **has}
    pushed = push_it(given, board)
    assert (pushed.outcome, pushed.exit_code, list(board.home.iterdir())) == ("unfit", 4, [])
    assert f"signature: it is to be verified there too, which needs cryptography; {seen}; push with --bootstrap" in (
        pushed.why
    )
    assert "-m pip install --upgrade cryptography" in pushed.why


def test_certificates_need_a_library_more(board: HereBoard, tmp_path: Path, make_package: Any) -> None:
    pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: pip install '.[signatures]'")
    root_key = make_key()
    root = make_certificate("root", root_key, ca=True)
    chain = [make_certificate("maker", KEY, (root, root_key)), root]
    trust = Trust(certificates=write(tmp_path / "root.pem", certificate_pem(root)))
    given = read_pushable(signed(tmp_path, make_package().path, chain=chain), trust)
    board.claims["versions"] = VERIFIES
    assert "needs pyopenssl; there is none" in push_it(given, board).why
    board.claims["versions"] = {**VERIFIES, "pyopenssl": "24.0.0"}
    pushed = push_it(given, board)
    assert (pushed.outcome, pushed.steps[0].answer["by"]) == ("current", "certificate CN=maker")


def test_a_board_verifies_by_itself_over_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here, make_package: Any
) -> None:
    """In a process of its own, where nothing of this dlx-deploy is but what was sent."""
    far, key = FakeBoard(tmp_path / "far", monkeypatch), write(tmp_path / "p.pem", public_pem(KEY))
    done = here("push", signed(tmp_path, make_package().path), "ssh://user@board", f"--public-key={key}", "--json")
    assert done.code == 0, done.err
    (pushed,) = json.loads(done.out)["boards"]
    assert [(step["name"], step["exit_code"]) for step in pushed["steps"]] == [("signature", 0), ("selftest", 0)]
    assert "dlx_trusted" not in "".join(str(path) for path in far.home.rglob("*"))
