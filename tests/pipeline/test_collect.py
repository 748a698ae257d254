"""Garbage collection: what it says, and that its work grows with the store and no faster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.pipeline.collect import collect_garbage
from dlx_deploy.pipeline.plan import plan
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.stores import CollectedView
from dlx_deploy.report.table import format_age

from .conftest import Events, Toy


def fill(store: Store, count: int) -> None:
    for number in range(count):
        folder = store.output_path(f"{number:064x}", "record.json").parent
        folder.mkdir(parents=True)
        (folder / "record.json").write_text('{"step": "export", "target_name": "b", "started": "2026-01-01T00:00:00Z"}')


def calls_of(monkeypatch: pytest.MonkeyPatch, store: Store, work: Callable[[], Any]) -> int:
    """How often ``work`` asks the file system something."""
    count = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            result = function(*arguments, **named)
            count += len(result) if isinstance(result, list) else 1
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("listdir", "stat", "lstat", "open", "rename", "unlink", "mkdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        work()
    return count


@pytest.mark.parametrize("dry_run", [True, False])
def test_twice_the_entries_are_twice_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool) -> None:
    calls = []
    for count in (40, 80, 160):
        store = Store(tmp_path / str(count))
        fill(store, count)
        calls.append(calls_of(monkeypatch, store, lambda store=store: collect_garbage(store, dry_run=dry_run)))
    assert calls[2] - calls[1] <= 2.1 * (calls[1] - calls[0])
    assert calls[2] < 40 * 160


def test_a_plan_reads_each_record_once(toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in range(4):
        run_build(toy.build(value), store, events)
    fresh, read = Store(store.root), []
    decode = msgspec.json.decode
    monkeypatch.setattr(msgspec.json, "decode", lambda data, **kinds: read.append(kinds) or decode(data, **kinds))
    toys = [toy.build(9, versions=(n, n, n)) for n in (2, 3, 4)]
    assert {p.action for build in toys for p in plan(build, fresh)} == {"run"}
    assert len(read) <= len(store.keys()) + len(toys)


def test_what_goes_is_named(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    run_build(toy.build(4), store, events)
    store.checkpoints("d" * 64).mkdir(parents=True)
    collected = collect_garbage(store, dry_run=True)
    assert {(e.step, e.target_name) for e in collected.entries} == {
        ("number", "board"),
        ("parity", "board"),
        ("scale", "board"),
        ("", ""),
    }
    assert sorted(e.key for e in collected.entries) == list(collected.removed)
    text = CollectedView(collected, dry_run=True).text.splitlines()
    assert text[0].split() == ["stage", "first", "built", "for", "age", "size", "key"]
    shown = {line.split()[-1] for line in text if line.startswith(("number", "parity", "scale"))}
    assert shown == {key[:12] for key in collected.removed} - {"d" * 12}
    assert any(line.startswith("(unfinished)") and "dddddddddddd" in line for line in text)
    assert text[-1].startswith("would free ")
    assert text[-1].endswith(": 4 entries; 3 are kept")


def test_a_long_list_is_cut_for_people(store: Store) -> None:
    fill(store, 60)
    text = CollectedView(collect_garbage(store), dry_run=False).text.splitlines()
    assert len(text) == 2 + 40 + 2
    assert text[-2] == "… and 20 more; --json lists all"
    assert text[-1].startswith("freed ")
    assert store.keys() == set()
    assert not list(store.root.glob(".trash-*"))
    assert not list(store.root.glob("locks/*"))


def test_a_collected_lock_keeps_nobody_out_and_lets_nobody_in_twice(store: Store) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = store.root / "locks" / "k"
    waited: list[str] = []
    path.parent.mkdir(parents=True)
    held = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)

    def meanwhile() -> None:
        waited.append("once")
        path.unlink()  # garbage collection has the lock, and takes its file away
        os.close(held)

    with store.lock("k", meanwhile):
        assert path.exists()  # locked is the file that the next one finds
        other = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert waited == ["once"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (86400, "1 day"), (3 * 86400 + 5, "3 days")],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_an_entry_s_age_and_size(store: Store, tmp_path: Path) -> None:
    folder = store.output_path("a" * 64, "x").parent
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(bytes(10))
    (folder / "file").write_bytes(bytes(7))
    (tmp_path / "big").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "big")
    (folder / "folder").symlink_to(tmp_path)
    links = sum(os.lstat(folder / name).st_size for name in ("link", "folder"))
    os.utime(folder, (1_000_000, 1_000_000))
    fill(store, 2)
    record = store.output_path(f"{1:064x}", "record.json")
    record.write_text('{"step": "later", "started": "2999-01-01T00:00:00Z"}')
    collected = collect_garbage(store, also_keep=["b" * 64], dry_run=True)
    assert [entry.key for entry in collected.entries] == ["a" * 64, f"{0:064x}", f"{1:064x}"]  # the oldest first
    assert list(collected.removed) == sorted(e.key for e in collected.entries)
    unfinished, finished, later = collected.entries
    assert (unfinished.started.timestamp(), unfinished.size_bytes) == (1_000_000, 17 + links)
    assert unfinished.age_s > 20 * 365 * 86400
    assert (finished.step, finished.started.isoformat()) == ("export", "2026-01-01T00:00:00+00:00")
    assert (later.step, later.target_name, later.age_s) == ("later", "", 0.0)
    assert collected.freed_bytes == sum(e.size_bytes for e in collected.entries)


def test_of_two_folders_the_one_with_a_record_says_what_it_was(store: Store) -> None:
    key = f"{0:064x}"
    store.output_path(key, "x").parent.mkdir(parents=True)
    store.output_path(key, "record.json").write_bytes(b"\xff")
    other = store.root / "store" / f".work-{key}-1"
    other.mkdir()
    (other / "record.json").write_text('{"step": "prune", "target_name": "b", "started": "2026-01-01T00:00:00Z"}')
    (entry,) = collect_garbage(store, dry_run=True).entries
    assert (entry.step, entry.target_name, entry.size_bytes) == ("prune", "b", 1 + 72)


def test_what_vanishes_meanwhile_counts_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"a" * 64: [store.root / "store" / ("a" * 64)]}
    monkeypatch.setattr(store, "contents", lambda: gone)
    (entry,) = collect_garbage(store, dry_run=True).entries
    assert (entry.size_bytes, entry.started.timestamp(), entry.step) == (0, 0.0, "")
