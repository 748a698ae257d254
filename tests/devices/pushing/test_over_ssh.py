"""``dlx-deploy push`` over the stand-in for ssh: real processes, the package's own self-test, real breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ...conftest import Here
from ..fake_board import FakeBoard

CHANGED = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n"


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    return FakeBoard(tmp_path / "far", monkeypatch)


def test_a_push_that_breaks_off_goes_on_and_a_worse_one_leaves_the_first(
    far: FakeBoard, here: Here, make_package: Any
) -> None:
    first, second = make_package(), make_package("2.0.0", wrong=True)
    root = far.home / "dlx-deploy" / "tiny"
    far.cut(60_000, after_commands=3)  # a look, the lock, what has come, and then the copy
    lost = here("push", first.path, "ssh://user@board")
    assert (lost.code, "broke off" in lost.err) == (4, True)
    (part,) = (root / "incoming").iterdir()
    come = part.stat().st_size
    assert part.name == f"{first.digest}.part"
    assert 0 < come < first.size_bytes

    done = here("push", first.path, "ssh://user@board", "--json", "--steal")
    assert done.code == 0, done.err
    (pushed,) = json.loads(done.out)["boards"]
    assert (pushed["outcome"], pushed["bytes_there"], pushed["current"]) == ("current", come, first.digest)
    assert pushed["steps"][0]["answer"]["verdict"] == "pass"
    assert (root / "current" / "package.dlx").read_bytes() == first.path.read_bytes()

    worse = here("push", second.path, "ssh://user@board/~/dlx-deploy/tiny")
    assert worse.code == 5
    assert "selftest ended with exit code 5: golden image 0 differs" in worse.err
    assert f"current there stays {first.digest[:12]}" in worse.err
    assert (root / "current" / "package.dlx").read_bytes() == first.path.read_bytes()
    back = here("push", first.path, "ssh://user@board", "--rollback")
    assert (back.code, "has no release before the current one; push one" in back.err) == (4, True)


def test_what_keeps_a_push_from_a_board_is_said_with_its_remedy(far: FakeBoard, here: Here, make_package: Any) -> None:
    far.refuses(CHANGED)
    told = here("push", make_package().path, "ssh://user@board")
    assert told.code == 4
    assert "error: ssh://user@board cannot be reached: its host key is not the one known of it" in told.err
    assert "ssh-keygen -R" in told.err
    assert json.loads(here("push", make_package().path, "ssh://user@board", "--json").out)["boards"][0]["outcome"] == (
        "not reached"
    )


def test_another_architecture_and_too_old_a_python_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here, make_package: Any
) -> None:
    far = FakeBoard(tmp_path / "nano", monkeypatch, machine="aarch64", python="3.6.9")
    told = here("push", make_package().path, "ssh://user@board")
    assert told.code == 4
    assert "architecture: the package is for x86_64, the board is aarch64; build for this board" in told.err
    assert "Python: 3.6.9 is too old; packages need 3.8 or newer" in told.err
    assert not (far.home / "dlx-deploy").exists()
