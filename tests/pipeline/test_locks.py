"""Locks of steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline import locks
from dlx_deploy.pipeline.locks import locked


def test_a_lock_that_was_collected_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    answers = [False, False, True]
    monkeypatch.setattr(locks, "_is_open_at", lambda handle, path: answers.pop(0))
    before = len(os.listdir("/proc/self/fd"))
    with locked(tmp_path / "locks" / "k", lambda: None):
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert (answers, len(os.listdir("/proc/self/fd"))) == ([], before)


def test_who_waits_is_told_once_and_then_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if locks.fcntl is None:
        pytest.skip("no file locks here")
    told: list[str] = []
    asked: list[int] = []

    def flock(handle: int, how: int) -> None:
        asked.append(how)
        if how & locks.fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(tmp_path / "k", lambda: told.append("waits")):
        assert told == ["waits"]
    assert asked == [locks.fcntl.LOCK_EX | locks.fcntl.LOCK_NB, locks.fcntl.LOCK_EX]


def test_a_lock_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    message = r"store .*locks/k: .*; check the disk, or name another folder with --store"
    with pytest.raises(StoreError, match=message), locked(tmp_path / "locks" / "k", lambda: None):
        pass
