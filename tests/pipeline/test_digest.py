"""Digests of files and folders, and the cache that spares reading them again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from dlx_deploy.pipeline.digest import DigestCache, combine, write_atomically


def old(path: Path) -> None:
    """Make the file look as if it had been written long ago, ctime included."""
    time.sleep(0.15)
    os.utime(path, ns=(1, 1))
    time.sleep(0.15)


def test_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert combine(DigestCache().of(file)) == hashlib.sha256(b"abc").hexdigest()


def test_a_folder_depends_on_names_and_bytes_alone(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, bytes]) -> str:
        for file, data in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(data)
        return combine(DigestCache().of(tmp_path / name))

    first = tree("one", {"a/x": b"1", "b/y": b"2"})
    assert tree("two", {"b/y": b"2", "a/x": b"1"}) == first
    assert tree("three", {"a/x": b"1", "b/z": b"2"}) != first
    assert tree("four", {"a/x": b"1", "b/y": b"3"}) != first


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a").write_bytes(b"1")
    before = combine(DigestCache().of(tmp_path / "t"))
    (tmp_path / "t" / ".DS_Store").write_bytes(b"x")
    assert combine(DigestCache().of(tmp_path / "t")) == before


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        DigestCache().of(tmp_path / "none")


def test_cache_spares_reading_and_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    old(file)
    cache = DigestCache(tmp_path / "cache.json")
    expected = cache.of(file)
    cache.save()

    def refuse(path: str) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("dlx_deploy.pipeline.digest._sha256", refuse)
    assert DigestCache(tmp_path / "cache.json").of(file) == expected
    with pytest.raises(AssertionError, match="read again"):
        DigestCache(tmp_path / "cache.json", deep=True).of(file)


def test_cache_sees_a_change_of_equal_size_and_mtime(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    old(file)
    cache = DigestCache(tmp_path / "cache.json")
    before = cache.of(file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))  # ctime still tells
    assert cache.of(file) != before


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    cache = DigestCache(tmp_path / "cache.json")
    cache.of(file)
    cache.save()
    assert not (tmp_path / "cache.json").exists()


@pytest.mark.parametrize("junk", [b"", b"{", b'{"a": 1}', b"\xff"])
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "cache.json").write_bytes(junk)
    (tmp_path / "a").write_bytes(b"abc")
    assert combine(DigestCache(tmp_path / "cache.json").of(tmp_path / "a")) == hashlib.sha256(b"abc").hexdigest()


def test_write_atomically_leaves_the_old_bytes_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    write_atomically(path, b"old")

    def fail(handle: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
