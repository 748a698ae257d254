"""The run loop: resume, early cut-off, damage, locks, gates, the manifest."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dlx_deploy.errors import (
    ConfigError,
    DataError,
    EnvironmentMissing,
    GateFailed,
    GateUndecided,
    StageFailed,
    StoreError,
)
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.plan import Build, plan
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.stores import view_status

from .conftest import Board, Events, NumberParams, Toy


def value_of(store: Store, build: Build, events: Events) -> str:
    return (run_build(build, store, events).outputs["scale"]["result"] / "value.txt").read_text()


def test_runs_each_step_once_then_finds_all(toy: Toy, store: Store, events: Events) -> None:
    assert value_of(store, toy.build(3), events) == "10"
    assert value_of(store, toy.build(3), events) == "10"
    assert toy.ran == ["number", "parity", "scale"]
    assert [e.status for e in events.entries] == ["ran"] * 3 + ["cached"] * 3


def test_equal_bytes_stop_the_rerun(toy: Toy, store: Store, events: Events) -> None:
    # Without the last step: its provenance names the parameters, so it always changes.
    run_build(Build("board", Board(), toy.steps(3)[:2], {}), store, events)
    run_build(Build("board", Board(), toy.steps(5)[:2], {}), store, events)
    assert toy.ran == ["number", "parity", "number", "parity"]
    run_build(Build("board", Board(), toy.steps(5, versions=(2, 1, 1))[:2], {}), store, events)
    assert toy.ran[4:] == ["number"]  # number wrote "5" again, so parity was found


def test_changing_back_is_all_hits(toy: Toy, store: Store, events: Events) -> None:
    for value in (3, 4, 3):
        value_of(store, toy.build(value), events)
    assert toy.ran == ["number", "parity", "scale"] * 2


def test_only_used_target_fields_enter_the_key(toy: Toy, store: Store, events: Events) -> None:
    value_of(store, toy.build(3), events)
    value_of(store, toy.build(3, target=Board(colour="red")), events)
    assert len(toy.ran) == 3
    assert value_of(store, toy.build(3, target=Board(factor=7)), events) == "7"
    assert toy.ran[3:] == ["scale"]


def test_a_failure_is_never_stored_and_keeps_what_came_before(toy: Toy, store: Store, events: Events) -> None:
    def break_it(job: Job, name: str) -> None:
        if name == "scale":
            raise ValueError("no luck")

    toy.trouble = break_it
    with pytest.raises(StageFailed, match=r"scale: ValueError: no luck"):
        run_build(toy.build(3), store, events)
    manifest = latest_manifests(store)["board"]
    assert (manifest.status, [s.step for s in manifest.steps]) == ("failed", ["number", "parity"])
    assert "no luck" in manifest.error
    assert not list(store.root.glob("store/.work-*"))
    toy.trouble = lambda job, name: None
    assert value_of(store, toy.build(3), events) == "10"
    assert toy.ran == ["number", "parity", "scale", "scale"]


def test_a_step_s_seconds_are_those_that_it_took(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, took = [4.0], {"number": 2.5, "parity": 0.25, "scale": 10.0}  # the machine has just been started

    def work(job: Job, name: str) -> None:
        clock[0] += took[name]

    toy.trouble = work
    for module in ("execution", "recorder"):
        monkeypatch.setattr(f"dlx_deploy.pipeline.{module}.time", SimpleNamespace(monotonic=lambda: clock[0]))
    manifest = run_build(toy.build(3), store, events).manifest
    assert {step.step: step.seconds for step in manifest.steps} == took
    assert manifest.seconds == 12.75


def test_notes_are_said_each_time_and_stop_nothing(toy: Toy, store: Store, events: Events) -> None:
    number, *others = toy.steps()
    noted = dataclasses.replace(number, notes=lambda outputs, metrics: [f"is {metrics['value']:g}"])
    build = dataclasses.replace(toy.build(), steps=[noted, *others])
    for _ in range(2):  # ran, then found
        result = run_build(build, store, events)
        assert (result.manifest.status, result.manifest.notes) == ("done", ("number: is 1",))
    assert [line for line in events.log if line.startswith("noted")] == ["noted number: is 1"] * 2


def test_our_own_errors_keep_their_kind_and_name_the_step(toy: Toy, store: Store, events: Events) -> None:
    def break_it(job: Job, name: str) -> None:
        raise DataError("class 'cat' has no images")

    toy.trouble = break_it
    with pytest.raises(DataError, match=r"number: class 'cat' has no images"):
        run_build(toy.build(), store, events)


def test_interrupt_is_recorded_and_leaves_no_work(toy: Toy, store: Store, events: Events) -> None:
    def break_it(job: Job, name: str) -> None:
        raise KeyboardInterrupt

    toy.trouble = break_it
    with pytest.raises(KeyboardInterrupt):
        run_build(toy.build(), store, events)
    assert latest_manifests(store)["board"].status == "interrupted"
    told = view_status(store.root).text
    assert told.endswith("interrupted; finished stages are kept: build again to go on")
    assert "error" not in told
    assert not list(store.root.glob("store/.work-*"))


@pytest.mark.parametrize("step", ["number", "parity", "scale"])
def test_a_flipped_byte_redoes_that_stage_alone(toy: Toy, store: Store, events: Events, step: str) -> None:
    build = toy.build(3)
    outputs = run_build(build, store, events).outputs[step]
    path = next(iter(outputs.values()))
    path = path / "value.txt" if path.is_dir() else path
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    toy.ran.clear()
    fresh = Store(store.root)
    assert [p.step.name for p in plan(build, fresh) if p.action == "run"] == [step]
    assert value_of(fresh, build, events) == "10"
    assert toy.ran == [step]
    damaged = "result/value.txt" if step == "scale" else path.name
    assert f"started {step}: its entry in the store is damaged: {damaged} is not the file that was stored" in str(
        events.log
    )


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1}'])
def test_an_unreadable_record_is_redone(toy: Toy, store: Store, events: Events, content: bytes) -> None:
    manifest = run_build(toy.build(3), store, events).manifest
    record = store.output_path(manifest.steps[1].key, "record.json")
    record.chmod(0o644)
    record.write_bytes(content)
    toy.ran.clear()
    assert value_of(store, toy.build(3), events) == "10"
    assert toy.ran == ["parity"]


def test_a_newer_record_is_refused_by_name(toy: Toy, store: Store, events: Events) -> None:
    manifest = run_build(toy.build(3), store, events).manifest
    record = store.output_path(manifest.steps[0].key, "record.json")
    record.chmod(0o644)
    record.write_text(record.read_text().replace('"schema": 1,\n "seconds"', '"schema": 9,\n "seconds"'))
    assert '"schema": 9' in record.read_text()
    with pytest.raises(StoreError, match=r"schema is 9; .* up to 1; use a newer dlx-deploy or another --store"):
        run_build(toy.build(3), store, events)


def test_full_disk_says_so_and_loses_nothing(toy: Toy, store: Store, events: Events) -> None:
    def break_it(job: Job, name: str) -> None:
        if name == "scale":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.out / "result"))

    toy.trouble = break_it
    with pytest.raises(StoreError, match=r"No space left on device; free some space \(dlx-deploy gc helps\)"):
        run_build(toy.build(3), store, events)
    toy.trouble = lambda job, name: None
    assert value_of(store, toy.build(3), events) == "10"
    assert toy.ran == ["number", "parity", "scale", "scale"]


def test_a_store_that_cannot_be_made_says_so(toy: Toy, tmp_path: Path, events: Events) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"store .*file.*; check the disk, or name another folder with --store"):
        run_build(toy.build(3), Store(tmp_path / "file"), events)


def test_a_warm_build_needs_no_writable_store(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_build(toy.build(3), store, events)

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("dlx_deploy.pipeline.store.write_atomically", refuse)
    assert value_of(store, toy.build(3), events) == "10"
    assert "the manifest of this build is not recorded" in caplog.text


def test_a_warm_build_writes_its_manifest_once(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []
    write = Store.write_build

    def count(self: Store, name: str, manifest: bytes) -> Path:
        written.append([step["step"] for step in msgspec.json.decode(manifest)["steps"]])
        return write(self, name, manifest)

    monkeypatch.setattr(Store, "write_build", count)
    run_build(toy.build(3), store, events)
    # Before a step works, so that `status` finds the build, and after it, so that a kill loses no word of it.
    assert written == [[], ["number"], ["number"], ["number", "parity"], ["number", "parity"], *[[*toy.ran]] * 2]
    written.clear()
    run_build(toy.build(3), store, events)
    assert written == [toy.ran]


def test_undeclared_and_missing_outputs_are_refused(store: Store, events: Events) -> None:
    def run(job: Job) -> Metrics:
        (job.out / job.params.name).write_text("x")
        return {}

    class Named(msgspec.Struct, frozen=True):
        name: str

    stage = Stage("s", 1, Named, (), ("out",), run)
    with pytest.raises(StageFailed, match=r"s: stage 's' wrote \['other'\] and declares \['out'\]"):
        run_build(Build("b", None, [Step("s", stage, Named("other"), {})], {}), store, events)

    def run_both(job: Job) -> Metrics:
        (job.out / "out").write_text("x")
        (job.out / "extra").write_text("x")
        return {}

    stage = Stage("s", 2, Named, (), ("out",), run_both)
    with pytest.raises(StageFailed, match=r"wrote \['extra', 'out'\] and declares \['out'\]"):
        run_build(Build("b", None, [Step("s", stage, Named("a"), {})], {}), store, events)


def test_a_missing_tool_stops_before_any_work(toy: Toy, store: Store, events: Events) -> None:
    steps = toy.steps(3)
    lacking = Stage("last", 1, NumberParams, (), ("x",), toy.number, tools=("no-such-distribution",))
    build = Build("board", Board(), [*steps, Step("last", lacking, NumberParams(), {})], {})
    with pytest.raises(EnvironmentMissing, match=r"no-such-distribution.*pip install .*\[build\]'"):
        run_build(build, store, events)
    assert toy.ran == []


def test_a_missing_source_names_the_step_and_path(store: Store, events: Events, tmp_path: Path) -> None:
    stage = Stage("load", 1, NumberParams, ("images",), ("x",), lambda job: {})
    step = Step("load", stage, NumberParams(), {"images": tmp_path / "none"})
    with pytest.raises(ConfigError, match=r"load: images .*none does not exist; correct the path"):
        run_build(Build("b", None, [step], {}), store, events)


def gate(verdict: Any) -> Any:
    def judge(outputs: Any, metrics: Metrics) -> list[GateResult]:
        return [
            GateResult(
                gate="accuracy",
                metric="value",
                value=metrics["value"],
                bound=0.1,
                limit=0.2,
                verdict=verdict,
                text="as it is",
            )
        ]

    return judge


def test_gates_stop_the_build_but_keep_the_measurement(toy: Toy, store: Store, events: Events) -> None:
    for verdict, error in (("fail", GateFailed), ("undecided", GateUndecided)):
        stopped = run_build(toy.build(3, gates=gate(verdict)), store, events).stopped
        assert type(stopped) is error
        assert str(stopped) == "scale: as it is"
        manifest = latest_manifests(store)["board"]
        assert manifest.status == "stopped by a gate"
        assert [g.verdict for g in manifest.gates] == [verdict]
    assert toy.ran == ["number", "parity", "scale"]
    for verdict in ("pending", "pass"):
        assert run_build(toy.build(3, gates=gate(verdict)), store, events).stopped is None
    assert toy.ran == ["number", "parity", "scale"]


def test_provenance_names_every_ancestor(toy: Toy, store: Store, events: Events) -> None:
    result = run_build(toy.build(3), store, events)
    steps = msgspec.json.decode((result.outputs["scale"]["result"] / "provenance.json").read_bytes())["steps"]
    assert sorted(steps) == ["number", "parity"]
    assert steps["number"]["params"] == {"value": 3}
    assert steps["parity"]["key"] == result.manifest.steps[1].key


def _build_in_child(root: Path, log: Path) -> None:
    toy = Toy()

    def slow(job: Job, name: str) -> None:
        with log.open("a") as f:
            f.write(name + "\n")
        time.sleep(0.3)

    toy.trouble = slow
    run_build(toy.build(3), Store(root), Events())


def test_two_builds_at_once_run_each_step_once(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_build_in_child, args=(store.root, log)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(log.read_text().split()) == ["number", "parity", "scale"]


def test_work_of_a_dead_process_is_cleared(toy: Toy, store: Store, events: Events) -> None:
    key = run_build(toy.build(3), store, events).manifest.steps[0].key
    store.remove(key)
    left = store.root / "store" / f".work-{key}-dead"
    left.mkdir()
    (left / "n.txt").write_text("half")
    assert value_of(store, toy.build(3), events) == "10"
    assert not left.exists()
