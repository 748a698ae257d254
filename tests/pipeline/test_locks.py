"""Locks of steps."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline import locks
from dlx_deploy.pipeline.locks import locked, locked_at_once


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


def refusing(monkeypatch: pytest.MonkeyPatch, *flags: int) -> None:
    """Files cannot be opened so; root could."""
    opens = os.open

    def refuse(path: Any, how: int, *mode: Any) -> int:
        if any(how & flag == flag for flag in flags):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opens(path, how, *mode)

    monkeypatch.setattr(locks.os, "open", refuse)


def test_a_file_that_may_only_be_read_locks_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.manifest.json"
    path.write_text("{}")
    refusing(monkeypatch, os.O_RDWR)
    with locked(path, lambda: None):
        assert locked_at_once(path) is None
    assert locked_at_once(path) is not None
    with pytest.raises(StoreError, match="make it writable, or name another folder with --store"):
        locked_at_once(tmp_path / "none")


def test_what_is_no_file_of_a_store_has_a_remedy_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.manifest.json"
    path.write_text("{}")
    refusing(monkeypatch, os.O_RDONLY)
    with (
        pytest.raises(StoreError, match=r"^x: Permission denied, elsewhere$"),
        locked(path, lambda: None, lambda e, path: StoreError(f"x: {e.strerror}, elsewhere")),
    ):
        pass


def test_a_lock_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    message = r"store .*locks/k: .*; check the disk, or name another folder with --store"
    with pytest.raises(StoreError, match=message), locked(tmp_path / "locks" / "k", lambda: None):
        pass
