"""The store by itself: what it says of what is wrong, and what it leaves behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.errors import StageFailed, StoreError
from dlx_deploy.pipeline import store as module
from dlx_deploy.pipeline.plan import plan
from dlx_deploy.pipeline.record import Corrupt, Record
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.pipeline.store import Store

from .conftest import Events, Toy


@pytest.fixture
def keys(toy: Toy, store: Store, events: Events) -> list[str]:
    """Of the three steps of a finished build."""
    return [step.key for step in run_build(toy.build(3), store, events).manifest.steps]


def what(store: Store, key: str) -> str:
    record = Store(store.root).find(key)
    assert isinstance(record, Corrupt)
    return record.what


def test_what_is_wrong_with_an_entry_is_said(store: Store, keys: list[str]) -> None:
    assert store.find("e" * 64) is None
    result = store.output_path(keys[2], "result")
    (result / "extra").write_text("more")
    assert what(store, keys[2]) == "result/extra is not the file that was stored (SHA-256 differs)"
    (result / "extra").unlink()
    assert isinstance(Store(store.root).find(keys[2]), Record)
    shutil.rmtree(result)
    assert what(store, keys[2]) == "result: no such file or folder"
    store.output_path(keys[1], "record.json").unlink()
    assert what(store, keys[1]) == "record.json is missing"
    record = store.output_path(keys[0], "record.json")
    record.chmod(0o644)
    record.write_bytes(b"\xff{")
    assert what(store, keys[0]).startswith("record.json cannot be read: ")
    record.unlink()
    record.mkdir()
    with pytest.raises(StoreError, match=rf"store .*{keys[0]}: Is a directory; check the disk, or name another"):
        store.find(keys[0])


def test_a_damaged_entry_knows_what_was_there(store: Store, keys: list[str]) -> None:
    before = store.find(keys[0])
    path = store.output_path(keys[0], "n.txt")
    path.chmod(0o644)
    path.write_text("9")
    record = Store(store.root).find(keys[0])
    assert record == Corrupt("n.txt is not the file that was stored (SHA-256 differs)", before)  # type: ignore[arg-type]


def test_an_entry_under_another_key_is_not_believed(store: Store, keys: list[str]) -> None:
    shutil.copytree(store.root / "store" / keys[0], store.root / "store" / ("a" * 64))
    assert what(store, "a" * 64) == "record.json does not belong to its key"


def test_records_are_the_newest_first_and_of_now(toy: Toy, store: Store, events: Events, keys: list[str]) -> None:
    (store.root / "store" / ("b" * 64)).mkdir()  # without a record
    (store.root / "store" / "c").mkdir()
    (store.root / "store" / "c" / "record.json").write_bytes(b"{")
    assert [r.key for r in store.records()] == keys[::-1]
    more = [s.key for s in run_build(toy.build(4), store, events).manifest.steps]
    assert [r.key for r in store.records()] == [*more[::-1], *keys[::-1]]
    store.remove(more[0])
    assert [r.key for r in store.records()] == [*more[:0:-1], *keys[::-1]]
    assert Store(store.root / "none").records() == []


def test_checkpoints_go_with_success_alone(toy: Toy, store: Store, events: Events) -> None:
    def checkpoint(job: Job[Any], name: str) -> None:
        job.checkpoints.mkdir(parents=True, exist_ok=True)
        (job.checkpoints / "1").write_text(name)
        if broken:
            raise ValueError("no luck")

    toy.trouble, broken = checkpoint, True
    with pytest.raises(StageFailed):
        run_build(toy.build(3), store, events)
    (key,) = store.keys()
    assert [p.name for p in store.checkpoints(key).iterdir()] == ["1"]
    broken = False
    run_build(toy.build(3), store, events)
    assert not list((store.root / "checkpoints").iterdir())


def test_a_damaged_entry_makes_way_and_leaves_nothing(
    toy: Toy, store: Store, events: Events, keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))  # it may lie on another file system
    path = store.output_path(keys[0], "n.txt")
    path.chmod(0o644)
    path.write_text("9")
    run_build(toy.build(3), Store(store.root), events)
    assert path.read_text() == "3"
    assert {p.name for p in store.root.iterdir()} - {"digests.json"} == {"builds", "locks", "store"}
    assert {p.name for p in (store.root / "store").iterdir()} == set(keys)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, r"free some space \(dlx-deploy gc helps\) and build again: finished stages are kept"),
        (errno.EDQUOT, "free some of your quota and build again: finished stages are kept"),
        (errno.EROFS, "the file system is read-only; name another folder with --store"),
        (errno.EIO, "check the disk, or name another folder with --store"),
        (errno.EFBIG, "check the disk, or name another folder with --store"),
    ],
)
def test_what_the_disk_says_has_a_remedy(
    toy: Toy, store: Store, events: Events, number: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(module, "_settle", fail)
    with pytest.raises(StoreError, match=rf"^store .*: {os.strerror(number)}; {remedy}$"):
        run_build(toy.build(3), store, events)
    assert not list((store.root / "store").iterdir())


def test_a_store_that_may_not_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    said = r"Permission denied; make it writable, or name another folder with --store$"

    def locked() -> None:
        with store.lock("k", lambda: None):
            pytest.fail("not locked")

    (store.root / "locks").mkdir(parents=True)
    for place, name, where, work in [
        (Path, "mkdir", "store", lambda: store.write(lambda folder: pytest.fail("nothing to fill"), "k")),
        (os, "open", "locks/k", locked),
        (module, "write_atomically", r"builds/b\.json", lambda: store.write_build("b.json", b"{}")),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(StoreError, match=rf"^store .*{where}: " + said):
                work()


def test_trouble_that_is_not_the_disk_s_goes_through(store: Store) -> None:
    def fill(folder: Path) -> Record:
        raise OSError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        store.write(fill, "k")
    assert not list((store.root / "store").iterdir())


def test_everything_is_on_the_disk_before_it_is_seen(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, folders, the entry, then the rename, then the folder that holds it."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note(handle: int) -> None:
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")).split("-")[0])
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(module, "write_atomically", lambda path, data: None)
    run_build(toy.build(3), store, events)
    assert done[:5] == ["n.txt", "record.json", ".work", "renamed", "store"]
    assert done[10:] == ["record.json", "result", "provenance.json", "value.txt", ".work", "renamed", "store"]


def test_a_lock_that_is_free_asks_nobody_to_wait(store: Store) -> None:
    waited: list[int] = []
    for _ in range(2):
        with store.lock("k", lambda: waited.append(1)):
            assert (store.root / "locks" / "k").stat().st_mode & 0o777 == 0o644
    assert waited == []


def test_a_lock_is_freed_by_trouble(store: Store) -> None:
    fcntl = pytest.importorskip("fcntl")
    with pytest.raises(RuntimeError), store.lock("k", lambda: None):
        raise RuntimeError
    other = os.open(store.root / "locks" / "k", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def interrupted() -> None:
        raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with pytest.raises(KeyboardInterrupt), store.lock("k", interrupted):
        pytest.fail("not locked")
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    os.close(other)


def test_removal_takes_all_of_a_key_and_what_a_killed_one_left(store: Store, keys: list[str]) -> None:
    left = store.root / ".trash-dead"
    (left / "0-0" / "deep").mkdir(parents=True)
    (left / "0-0" / "deep" / "file").write_text("x")
    for folder in (store.checkpoints(keys[0]), store.root / "store" / f".work-{keys[0]}-1"):
        folder.mkdir(parents=True)
    assert len(store.contents()[keys[0]]) == 3
    store.remove_all({})
    assert left.exists()  # nothing to do is nothing done
    store.remove(keys[0])
    assert store.keys() == set(keys[1:])
    assert not left.exists()
    assert {p.name for p in (store.root / "locks").iterdir()} == set(keys[1:])
    store.remove("f" * 64)  # what is not there is no trouble


def test_digests_are_remembered_where_there_is_a_store(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(toy.build(3), store)
    store.save_digests()
    assert not store.root.exists()
    monkeypatch.setattr("dlx_deploy.pipeline.digest._SETTLED_NS", -1)
    run_build(toy.build(3), store, events)
    assert len(msgspec.json.decode((store.root / "digests.json").read_bytes())) >= 4


def test_deep_reads_what_the_stamps_hide(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.pipeline.digest._SETTLED_NS", -1)
    read: list[str] = []
    run_build(toy.build(3), store, events)
    warm = Store(store.root)
    plan(toy.build(3), warm)
    warm.save_digests()
    monkeypatch.setattr("dlx_deploy.pipeline.digest._sha256", lambda path: read.append(path) or "0" * 64)
    plan(toy.build(3), Store(store.root))
    assert read == []
    plan(toy.build(3), Store(store.root, deep=True))
    assert len(read) == 4


def test_what_cannot_be_cleared_stops_no_build(
    toy: Toy, store: Store, events: Events, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    (store.root / "store" / f".work-{keys[0]}-dead").mkdir()
    (store.root / "checkpoints" / keys[0]).mkdir(parents=True)
    path = store.output_path(keys[0], "n.txt")
    path.chmod(0o644)
    path.write_text("9")
    monkeypatch.setattr(shutil, "rmtree", stuck)
    run_build(toy.build(3), Store(store.root), events)
    assert path.read_text() == "3"


@pytest.mark.parametrize("digit", ["0", "f"])
def test_a_record_of_another_key_is_not_believed(store: Store, keys: list[str], digit: str) -> None:
    record = store.output_path(keys[0], "record.json")
    record.chmod(0o644)
    record.write_text(record.read_text().replace(f'"key": "{keys[0]}"', f'"key": "{digit * 64}"'))
    assert digit * 64 in record.read_text()
    assert what(store, keys[0]) == "record.json does not belong to its key"


def test_removal_does_not_follow_links(store: Store, keys: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").write_text("x")
    store.checkpoints(keys[0]).mkdir(parents=True)
    (store.checkpoints(keys[0]) / "link").symlink_to(tmp_path / "mine")
    (store.checkpoints(keys[0]) / "file").symlink_to(tmp_path / "mine" / "photo")
    store.remove(keys[0])
    assert (tmp_path / "mine" / "photo").read_text() == "x"
    assert not store.checkpoints(keys[0]).exists()
    assert not list(store.root.glob(".trash-*"))


def test_removal_says_what_the_disk_says(store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StoreError, match=r"^store .*: Permission denied; make it writable, or name another folder"):
        store.remove(keys[0])
    assert store.keys() == set(keys)
    assert not list(store.root.glob(".trash-*"))


def test_a_build_closes_what_it_opens(toy: Toy, store: Store, events: Events) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    before = len(os.listdir("/proc/self/fd"))
    run_build(toy.build(3), store, events)
    assert len(os.listdir("/proc/self/fd")) == before
