"""Digests of files and folders, and the cache that spares reading them again."""

from __future__ import annotations

import hashlib
import os
import time
import types
from pathlib import Path

import pytest

from dlx_deploy.pipeline.digest import DigestCache, canonical_json, combine
from dlx_deploy.runtime.files import write_atomically


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
    with pytest.raises(FileNotFoundError, match="no such file or folder") as e:
        DigestCache().of(tmp_path / "none")
    assert (e.value.errno, e.value.filename) == (2, str(tmp_path / "none"))


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


def test_a_long_file_is_read_to_its_end(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    digests = DigestCache().of(tmp_path / "a")
    assert (digests[""].sha256, digests[""].size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_only_the_named_files_and_no_hidden_folder(tmp_path: Path) -> None:
    for name in ("b/x", "a/x", "a/.h/y", ".git/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(DigestCache().of(tmp_path)) == ["a/x", "b/x"]
    assert list(DigestCache().of(tmp_path, ["b/x", ".git/z"])) == ["b/x", ".git/z"]
    assert DigestCache().of(tmp_path, []) == {}


def test_one_file_is_no_folder_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert combine(DigestCache().of(tmp_path)) != combine(DigestCache().of(tmp_path / "a"))


def test_canonical_json_is_pinned() -> None:
    assert canonical_json({"b": [1], "a": "ü"}) == '{\n "a": "ü",\n "b": [\n  1\n ]\n}\n'.encode()


def test_the_cache_is_written_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr("dlx_deploy.pipeline.digest.write_atomically", lambda path, data: written.append(path))
    monkeypatch.setattr("dlx_deploy.pipeline.digest._SETTLED_NS", -1)
    (tmp_path / "a").write_bytes(b"abc")
    cache = DigestCache(tmp_path / "cache.json")
    cache.save()
    assert written == []
    cache.of(tmp_path / "a")
    cache.save()
    cache.save()
    assert written == [tmp_path / "cache.json"]

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    cache.of(tmp_path / "a")
    cache._changed = True
    monkeypatch.setattr("dlx_deploy.pipeline.digest.write_atomically", refuse)
    cache.save()  # losing it costs time only
    unkept = DigestCache()
    unkept.of(tmp_path / "a")
    unkept.save()


def test_the_size_and_the_inode_tell_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.pipeline.digest._SETTLED_NS", -1)
    (tmp_path / "a").write_bytes(b"abc")
    status, stat = os.stat(tmp_path / "a"), os.stat
    cache = DigestCache()
    before = cache.of(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"other bytes")
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    for changed in (None, *names):
        stamps = {name: getattr(status, name) + (name == changed) for name in names}
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", lambda path, stamps=stamps, **_: types.SimpleNamespace(**stamps))
            digest = cache._file(str(tmp_path / "a"))
        assert (digest.sha256 == before[""].sha256) is (changed is None), changed
        cache._known[str(tmp_path / "a")] = (tuple(getattr(status, name) for name in names), before[""].sha256)
    assert os.stat is stat


def test_the_new_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    write_atomically(tmp_path / "m.json", b"new")
    assert synced == [3]
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize("kept", [False, True])
def test_a_file_of_the_future_is_not_remembered(tmp_path: Path, kept: bool) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    later = time.time_ns() + (-1 if kept else 1) * 3_600_000_000_000
    os.utime(file, ns=(later, later))
    time.sleep(0.15)
    cache = DigestCache(tmp_path / "cache.json")
    cache.of(file)
    cache.save()
    assert (tmp_path / "cache.json").exists() is kept
