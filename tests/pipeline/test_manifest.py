"""Manifests: the newest of each target, what became of a dead build, and what one says."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dlx_deploy
from dlx_deploy.errors import EnvironmentMissing, GateFailed, GateUndecided, StageFailed, StoreError
from dlx_deploy.pipeline.gate import GateResult, stop_unless_passed
from dlx_deploy.pipeline.manifest import Manifest, latest_manifests
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step
from dlx_deploy.pipeline.store import Store

from .conftest import BOARD, Build, Events, NumberParams, Toy


def put(store: Store, name: str, **changes: Any) -> Path:
    values: dict[str, Any] = {"schema": 1, "dlx_deploy": "0", "target_name": "a", "target": None, "config": None}
    values |= {"host": {}, "started": name, "status": "done", **changes}
    return store.write_build(f"{name}.json", msgspec.json.encode(values))


def test_the_newest_of_each_target_counts(store: Store) -> None:
    put(store, "20260103-b-b-7", target_name="b-b", status="failed")
    put(store, "20260102-a-7", error="second")
    put(store, "20260101-a-9", error="first", schema=9)  # what nobody asks for may be newer than this dlx-deploy
    put(store, "20260104-a-7").write_bytes(b"{")
    put(store, "20260105-c-7").unlink()
    (store.root / "builds" / "20260106-a-7.json").mkdir()
    manifests = latest_manifests(store)
    assert list(manifests) == ["a", "b-b"]  # the newest last
    assert (manifests["a"].error, manifests["b-b"].status) == ("second", "failed")
    put(store, "20260107-a-7", schema=2)
    with pytest.raises(StoreError, match=r"20260107-a-7\.json: schema is 2; .* up to 1; use a newer dlx-deploy$"):
        latest_manifests(store)
    assert latest_manifests(Store(store.root / "none")) == {}


@pytest.mark.parametrize(
    ("trouble", "status"), [(None, "running"), (PermissionError(), "running"), (ProcessLookupError(), "killed")]
)
def test_a_build_that_says_running_may_be_dead(
    store: Store, monkeypatch: pytest.MonkeyPatch, trouble: Exception | None, status: str
) -> None:
    def kill(process: int, signal: int) -> None:
        assert (process, signal) == (77, 0)
        if trouble is not None:
            raise trouble

    monkeypatch.setattr(os, "kill", kill)
    put(store, "20260101-a-77", status="running")
    manifest = latest_manifests(store)["a"]
    assert (manifest.status, manifest.error) == (
        status,
        "its process is gone: build again" if status == "killed" else "",
    )


def test_a_process_without_a_number_is_dead_and_one_that_ended_well_is_not_asked(store: Store) -> None:
    put(store, "20260101-a-x", status="running")
    put(store, "20260101-b-x", target_name="b", status="interrupted")
    assert {name: manifest.status for name, manifest in latest_manifests(store).items()} == {
        "a": "killed",
        "b": "interrupted",
    }


def test_a_manifest_says_all_of_a_build(toy: Toy, store: Store, events: Events) -> None:
    build = dataclasses.replace(toy.build(3), host={"cpu": "x"})
    result = run_build(build, store, events)
    (path,) = (store.root / "builds").iterdir()
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}\.\d{{6}}Z-board-{os.getpid()}\.json", path.name)
    read = msgspec.json.decode(path.read_bytes(), type=Manifest)
    assert read == msgspec.structs.replace(result.manifest, target=msgspec.to_builtins(BOARD))
    assert (read.schema, read.dlx_deploy, read.target_name) == (1, dlx_deploy.__version__, "board")
    assert (read.target, read.config, read.host) == (msgspec.to_builtins(BOARD), {"value": 3}, {"cpu": "x"})
    assert (read.status, read.error, [s.status for s in read.steps]) == ("done", "", ["ran"] * 3)
    assert 0 <= sum(s.seconds for s in read.steps) <= read.seconds + 0.01 < 60
    assert read.seconds == round(read.seconds, 3)
    assert read.started <= read.steps[0].started <= read.steps[1].started
    assert read.steps[0].why == "never built"
    number = read.steps[0]
    record: Any = store.find(number.key)
    assert (number.document, number.outputs, number.metrics) == (record.document, record.outputs, {"value": 3.0})
    assert (number.tools, number.started, number.seconds) == (record.tools, record.started, record.seconds)
    assert (record.schema, record.step, record.target_name, record.seconds) == (1, "number", "board", number.seconds)
    again = run_build(build, store, events).manifest
    assert [(s.why, s.started) for s in again.steps] == [("cached", s.started) for s in read.steps]
    assert len(list((store.root / "builds").iterdir())) == 2


def test_a_failure_without_words_has_a_name(toy: Toy, store: Store, events: Events) -> None:
    def end(name: str) -> None:
        raise SystemExit

    events.on_start = end
    with pytest.raises(SystemExit):
        run_build(toy.build(3), store, events)
    manifest = latest_manifests(store)["board"]
    assert (manifest.status, manifest.error) == ("failed", "SystemExit")


def test_a_job_has_all_that_its_build_says(store: Store, events: Events, tmp_path: Path) -> None:
    seen: list[Job[NumberParams]] = []

    def run(job: Job[NumberParams]) -> Metrics:
        seen.append(job)
        job.progress(1, 4, "a quarter")
        job.progress(2, 4)
        (job.out / "x").write_text("x")
        return {"z": 1.0, "a": 2.0}

    class Alone:
        ran: list[str] = []  # noqa: RUF012

        def run(self, stage: Stage[Any], job: Job[Any]) -> Metrics:
            self.ran.append(stage.name)
            return stage.run(job)

    file, team = tmp_path / "f", Alone()
    file.write_text("f")
    kinds = {"one": False, "both": True}
    steps = [
        Step(
            name,
            Stage(name, 1, NumberParams, ("file",), ("x",), run, distributed=d),
            NumberParams(5),
            {"file": file},
            7,
        )
        for name, d in kinds.items()
    ]
    build = Build("b", BOARD, steps, {}, threads=3, processes=2, team=team, logs=tmp_path / "logs")
    manifest = run_build(build, store, events).manifest
    job = seen[0]
    assert (job.params, job.inputs, job.seed, job.threads, job.processes) == (NumberParams(5), {"file": file}, 7, 3, 2)
    assert (job.logs, job.checkpoints) == (tmp_path / "logs" / "one", store.checkpoints(manifest.steps[0].key))
    assert team.ran == ["both"]
    assert "progress one 1/4 a quarter" in events.log
    assert "progress one 2/4 " in events.log
    assert list(store.records()[0].metrics) == ["a", "z"]
    run_build(dataclasses.replace(build, logs=None, team=None, target=None), Store(tmp_path / "other"), events)
    assert (team.ran, seen[-1].logs) == (["both"], None)


@pytest.mark.parametrize("own", [False, True])
def test_trouble_with_other_files_is_the_step_s(toy: Toy, store: Store, events: Events, own: bool) -> None:
    def fail(job: Job[Any], name: str) -> None:
        raise FileNotFoundError(2, "No such file", str(job.out / "n") if own else "/elsewhere/images")

    toy.trouble = fail
    with pytest.raises(FileNotFoundError if own else StageFailed) as e:
        run_build(toy.build(3), store, events)
    assert own or str(e.value) == "number: [Errno 2] No such file: '/elsewhere/images'"


def test_what_is_missing_says_which_extras(
    toy: Toy, store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.pipeline.execution.tool_versions", lambda names: dict.fromkeys(names, "missing"))
    tools = ("transformers", "timm", "torch", "onnx", "timm")
    steps = [dataclasses.replace(s, stage=dataclasses.replace(s.stage, tools=tools)) for s in toy.steps()]
    with pytest.raises(EnvironmentMissing) as e:
        run_build(dataclasses.replace(toy.build(), steps=steps), store, events)
    assert "building needs onnx, timm, torch, transformers, not installed here; install with: " in str(e.value)
    assert "[build,timm,hf]" in str(e.value)


def test_a_failed_gate_comes_before_an_undecided_one() -> None:
    def result(verdict: Any, text: str) -> GateResult:
        return GateResult(gate="g", metric="m", value=None, bound=None, limit=0, verdict=verdict, text=text)

    fine = [result("pass", "a"), result("pending", "b")]
    stop_unless_passed("s", fine)
    with pytest.raises(GateUndecided, match=r"^s: c; d$"):
        stop_unless_passed("s", [result("undecided", "c"), *fine, result("undecided", "d")])
    with pytest.raises(GateFailed, match=r"^s: e; f$"):
        stop_unless_passed("s", [result("undecided", "c"), result("fail", "e"), *fine, result("fail", "f")])


def test_another_build_that_finished_it_meanwhile_is_believed(toy: Toy, store: Store, events: Events) -> None:
    """While this one waits for the lock of a step, the step is done: it is found, and that is what is said."""
    fcntl = pytest.importorskip("fcntl")
    first, other = Store(store.root), Toy()
    (store.root / "locks").mkdir(parents=True)
    waited: list[str] = []

    class Waits(Events):
        def waiting(self, step: Step) -> None:
            waited.append(step.name)
            os.close(held)
            run_build(other.build(3), first, Events())

    key = run_build(Toy().build(3), Store(store.root / "scratch"), Events()).manifest.steps[0].key
    held = os.open(store.root / "locks" / key, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    manifest = run_build(toy.build(3), store, Waits()).manifest
    assert (waited, toy.ran, other.ran) == (["number"], [], ["number", "parity", "scale"])
    assert [(s.status, s.why) for s in manifest.steps] == [("cached", "cached")] * 3
