"""Several steps at a time: what is side by side, what is alone, and that nothing else differs."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.errors import DataError, GateFailed, StageFailed
from dlx_deploy.pipeline import pool
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.side_by_side import run_builds
from dlx_deploy.pipeline.stage import Stage
from dlx_deploy.pipeline.store import Store
from dlx_deploy.pipeline.worker import Done, Failed, packed

from ..devices.fake_board import FakeBoard
from .conftest import Events, NoParams, Toy


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of a stage that workers can import."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("workbench")


class Here:
    """In place of the pool: does what it is given in this process, the last given first, and only when asked."""

    most = 0
    """So many had work at the same time."""
    seen: list[set[str]]
    needed: list[set[str]]
    """Tools of what was left, each time that there was something new."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Any, Any]] = []
        Here.most, Here.seen, Here.needed = 0, [], []

    def give(self, task: bytes) -> object:
        call, job = pickle.loads(task)  # noqa: S301
        self.tasks.append((object(), (call, job)))
        Here.most = max(Here.most, len(self.tasks))
        Here.seen.append({getattr(getattr(job, "params", None), "name", "rehearsal") for _, (_, job) in self.tasks})
        return self.tasks[-1][0]

    def heard(self, timeout_s: float | None = None, workers: Sequence[Any] | None = None) -> list[tuple[Any, Any]]:
        worker, (call, job) = next(t for t in reversed(self.tasks) if workers is None or t[0] in workers)
        self.tasks = [t for t in self.tasks if t[0] is not worker]
        try:
            return [(worker, Done(call(job), 1, peak_memory_mib=2.5))]
        except Exception as e:
            return [(worker, Failed(e, modules=1))]

    def let_go(self, needed: set[str]) -> None:
        if needed not in Here.needed[-1:]:
            Here.needed.append(needed)

    def stop(self, workers: Sequence[Any] | None = None) -> None:
        self.tasks = [t for t in self.tasks if workers is not None and t[0] not in workers]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    monkeypatch.setattr(pool, "Pool", Here)
    return Here


def keys(store: Store) -> dict[str, list[str]]:
    return {record.step: [record.key, *(out.digest for out in record.outputs.values())] for record in store.records()}


def test_steps_that_need_nothing_of_each_other_run_at_the_same_time(
    bench: ModuleType, store: Store, events: Events, tmp_path: Path
) -> None:
    log = str(tmp_path)
    steps = [
        bench.step("first"),
        bench.step("left", "first", log=log, meets=("right",)),  # each waits until the other has begun
        bench.step("right", "first", log=log, meets=("left",)),
        bench.step("last", "left", "right"),
    ]
    (result,) = run_builds([bench.build(*steps)], store, [events], jobs=2)
    assert result.manifest.status == "done"
    assert result.outputs["last"]["out.txt"].read_text() == "lastleftfirstrightfirst"
    assert os.getpid() not in [int((tmp_path / name).read_text()) for name in ("left", "right")]
    assert "progress left 1/2 half" in events.log
    assert not list(store.root.glob("store/.work-*"))


def test_what_comes_of_it_is_what_comes_one_by_one(
    bench: ModuleType, tmp_path: Path, events: Events, here: type[Here]
) -> None:
    steps = [bench.step("a"), bench.step("b", "a"), bench.step("c", "a"), bench.step("d"), bench.step("e", "b", "d")]
    one, many = Store(tmp_path / "one"), Store(tmp_path / "many")
    expected = run_build(bench.build(*steps), one, Events())
    (result,) = run_builds([bench.build(*steps)], many, [events], jobs=3)
    assert here.most == 2
    assert keys(many) == keys(one)
    assert [e.step for e in result.manifest.steps] == [e.step for e in expected.manifest.steps]
    assert [e.step for e in events.entries] == list("abcde")  # told in the order of the plan, not as they ended
    assert "done d" in events.log
    again = Events()
    (warm,) = run_builds([bench.build(*steps)], many, [again], jobs=3)
    assert {e.status for e in warm.manifest.steps} == {"cached"}
    assert again.log == []


def test_what_is_timed_runs_alone(bench: ModuleType, store: Store, events: Events, here: type[Here]) -> None:
    device = SimpleNamespace(identity={"label": "this"}, facts=dict, is_here=True)
    steps = [bench.step("a"), bench.step("timed", timed=True), bench.step("c"), bench.step("too", "a", timed=True)]
    list(run_builds([bench.build(*steps, device=device)], store, [events], jobs=4))
    assert {"timed"} in here.seen
    assert {"too"} in here.seen
    assert not [names for names in here.seen if names & {"timed", "too"} and len(names) > 1]
    assert {"a", "c"} in here.seen
    other = Store(store.root / "no-device")  # nothing is timed where there is no device
    list(run_builds([bench.build(*steps)], other, [events], jobs=4))
    assert {"a", "timed", "c"} in here.seen


def test_a_worker_logs_in_at_a_board_by_itself(
    bench: ModuleType, store: Store, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``build --on BOARD --jobs 2`` has it."""
    board, log, model = FakeBoard(tmp_path / "board", monkeypatch), str(tmp_path), tmp_path / "a.onnx"
    model.write_bytes(b"a model")
    steps = [bench.step("first"), bench.step("there", "first", log=log, puts=str(model), timed=True)]
    with board.connection() as connection:
        device = RemoteBoard(connection)
        (result,) = run_builds([bench.build(*steps, device=device)], store, [events], jobs=2)
        assert connection._login is not None, "it was asked here what it is, for the key"
    assert result.manifest.status == "done"
    assert int((tmp_path / "there").read_text()) != os.getpid()
    assert [path.read_bytes() for path in (board.home / ".cache/dlx-deploy/kept").iterdir()] == [b"a model"]
    logins = [asked.split(" -S ")[1].split()[0] for asked in board.asked() if " -M " in asked]
    assert len(logins) == len(set(logins)) == 2
    assert not [Path(socket).parent for socket in logins if Path(socket).parent.exists()]
    again = Events()
    list(run_builds([bench.build(*steps, device=device)], store, [again], jobs=2))
    assert again.status() == {"first": "cached", "there": "cached"}
    device.connection.close()


def test_a_worker_that_holds_torch_goes_when_nothing_needs_it(
    bench: ModuleType, store: Store, events: Events, here: type[Here]
) -> None:
    steps = [bench.step("a", tools=("torch",)), bench.step("b", "a", tools=("numpy",)), bench.step("c", "b")]
    (result,) = run_builds([bench.build(*steps)], store, [events], jobs=2)
    assert here.needed == [{"torch", "numpy", "msgspec"}, {"numpy", "msgspec"}, {"msgspec"}]
    assert [(e.step, e.peak_memory_mib) for e in result.manifest.steps] == [("a", 2.5), ("b", 2.5), ("c", 2.5)]
    assert {record.peak_memory_mib for record in store.records()} == {2.5}


def test_a_worker_that_has_begun_before_is_gone_on_with(bench: ModuleType, store: Store, events: Events) -> None:
    workers = pool.Pool()
    with pytest.raises(DataError, match="rehearsed in vain"):
        workers.finish(packed(bench.refuse, None) or b"")
    (before,) = workers._idle
    (result,) = run_builds([bench.build(bench.step("a"))], store, [events], 2, workers)
    assert result.manifest.status == "done"
    assert workers._idle == workers._busy == []
    assert before._process.poll() is not None


def test_only_idle_workers_that_hold_what_nothing_needs_are_ended() -> None:
    ended: list[str] = []

    def worker(name: str, *holds: str) -> Any:
        return SimpleNamespace(holds=frozenset(holds), tell_to_stop=lambda: ended.append(name), stop=lambda: None)

    workers = pool.Pool()
    workers._idle, workers._busy = [worker("idle", "torch"), worker("light")], [worker("busy", "torch")]
    workers.let_go({"numpy", "torch"})
    assert ended == []
    workers.let_go({"numpy"})
    assert ended == ["idle"]
    assert [one.holds for one in workers._idle] == [frozenset()]


def test_builds_share_what_is_the_same(bench: ModuleType, store: Store, here: type[Here]) -> None:
    watches = [Events(), Events()]
    builds = [
        bench.build(bench.step("a"), bench.step("b", "a"), name="one"),
        bench.build(bench.step("a"), bench.step("c", "a"), name="two"),
    ]
    results = list(run_builds(builds, store, watches, jobs=4))
    assert [result.manifest.target_name for result in results] == ["one", "two"]
    assert [watch.status() for watch in watches] == [{"a": "ran", "b": "ran"}, {"a": "cached", "c": "ran"}]
    assert {"b", "c"} in here.seen


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_first_failure_in_the_plan_counts(
    bench: ModuleType, store: Store, events: Events, here: type[Here], jobs: int
) -> None:
    steps = [bench.step("a"), bench.step("b", trouble="mine"), bench.step("c", trouble="value")]  # c ends before b
    with pytest.raises(DataError, match=r"^b: mine$"):
        list(run_builds([bench.build(*steps)], store, [events], jobs))
    assert set(keys(store)) == {"a"}  # what comes before the failure is finished, and failures are not stored
    manifest = latest_manifests(store)["board"]
    assert (manifest.status, manifest.error) == ("failed", "b: mine")
    assert not list(store.root.glob("store/.work-*"))


def test_a_build_that_fails_leaves_what_others_gave(bench: ModuleType, store: Store, here: type[Here]) -> None:
    builds = [
        bench.build(bench.step("a"), bench.step("b", "a"), name="one"),
        bench.build(bench.step("c", trouble="value"), name="two"),
        bench.build(bench.step("d"), bench.step("e", "d"), name="three"),
    ]
    results = run_builds(builds, store, [Events(), Events(), Events()], jobs=3)
    assert next(results).manifest.status == "done"
    with pytest.raises(StageFailed, match=r"c: ValueError: value"):
        next(results)
    statuses = {name: manifest.status for name, manifest in latest_manifests(store).items()}
    assert statuses == {"one": "done", "two": "failed", "three": "interrupted"}


def test_nothing_after_a_gate_is_run_or_told(bench: ModuleType, store: Store, events: Events, here: type[Here]) -> None:
    failed = GateResult(gate="g", metric="m", value=0.0, bound=0.0, limit=0.0, verdict="fail", text="too low")
    steps = [bench.step("a", gates=lambda outputs, metrics: [failed]), bench.step("b"), bench.step("c", "b")]
    (result,) = run_builds([bench.build(*steps)], store, [events], jobs=2)
    assert isinstance(result.stopped, GateFailed)
    assert [e.step for e in result.manifest.steps] == [e.step for e in events.entries] == ["a"]
    assert set(result.outputs) == {"a"}
    assert latest_manifests(store)["board"].status == "stopped by a gate"


def test_a_rehearsal_s_refusal_comes_before_anything_is_kept(
    bench: ModuleType, store: Store, events: Events, here: type[Here]
) -> None:
    build = bench.build(bench.step("a"), bench.step("b", "a", rehearse=bench.refuse))
    with pytest.raises(DataError, match="b: rehearsed in vain"):
        list(run_builds([build], store, [events], jobs=2))
    assert {"rehearsal", "a"} in here.seen
    assert keys(store) == {}
    assert latest_manifests(store)["board"].status == "failed"


def test_a_stage_that_cannot_travel_runs_here(toy: Toy, store: Store, events: Events) -> None:
    (result,) = run_builds([toy.build(3)], store, [events], jobs=2)
    assert toy.ran == ["number", "parity", "scale"]
    assert (result.outputs["scale"]["result"] / "value.txt").read_text() == "10"


def test_of_a_step_that_another_process_has_the_result_is_awaited(
    bench: ModuleType, store: Store, events: Events, here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [bench.step("a"), bench.step("b"), bench.step("c", "a")]
    (made,) = run_builds([bench.build(*steps[:1])], Store(store.root / "other"), [Events()], jobs=2)
    held = store.lock_at_once(made.manifest.steps[0].key)
    assert held is not None
    assert store.lock_at_once(made.manifest.steps[0].key) is None
    monkeypatch.setattr("dlx_deploy.pipeline.side_by_side.time", SimpleNamespace(sleep=lambda seconds: held.close()))
    (result,) = run_builds([bench.build(*steps)], store, [events], jobs=2)
    assert events.log.count("waiting a") == 1
    assert [e.split(":")[0] for e in events.log if e.startswith("started")] == ["started b", "started a", "started c"]
    assert result.manifest.status == "done"


def test_a_worker_that_dies_is_named_and_what_it_logs_is_said(
    bench: ModuleType, store: Store, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StageFailed, match=r"^a: the process that ran it was ended by SIGKILL; .*--jobs 1 takes less$"):
        list(run_builds([bench.build(bench.step("a", trouble="die"))], store, [events], jobs=2))
    with caplog.at_level(logging.WARNING), pytest.raises(StageFailed, match=r"^b: ValueError: value$"):
        list(run_builds([bench.build(bench.step("b", trouble="value"))], store, [events], jobs=2))
    assert "about to fail: value" in caplog.text


def is_there(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_one_that_builds(tmp_path: Path, by: signal.Signals) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks for processes in /proc")
    code = (
        f"import signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore\n"
        "from pathlib import Path; import workbench; from dlx_deploy.report.live import QuietWatcher\n"
        "from dlx_deploy.pipeline.side_by_side import run_builds; from dlx_deploy.pipeline.store import Store\n"
        f"steps = [workbench.step(n, log={str(tmp_path)!r}, meets=('never',)) for n in 'ab']\n"
        f"list(run_builds([workbench.build(*steps)], Store(Path({str(tmp_path)!r}) / 's'), [QuietWatcher(print)], 2))\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    logs, deadline = [tmp_path / "a", tmp_path / "b"], time.monotonic() + 60
    while not all(log.exists() and log.read_text() for log in logs) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(log.read_text()) for log in logs]
    assert all(is_there(pid) for pid in workers)
    builder.send_signal(by)
    builder.wait(30)
    while any(is_there(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_there(pid) for pid in workers)
    store = Store(tmp_path / "s")
    assert latest_manifests(store)["board"].status == ("interrupted" if by == signal.SIGINT else "killed")


def test_every_stage_can_travel(store: Store) -> None:
    from dlx_deploy.pipeline.stage import Job
    from dlx_deploy.pipeline.view import seen_by
    from dlx_deploy.pipeline.worker import packed, packed_stage
    from dlx_deploy.stages.registry import STAGES, load_stage
    from dlx_deploy.targets import load_target

    target = seen_by("any", load_target("jetson").profile, ("name",))
    for name in STAGES:
        stage: Stage[Any] = load_stage(name)
        task = packed_stage(stage, Job(NoParams(), {}, store.root, target))
        assert task is not None, name
        call, job = pickle.loads(task)  # noqa: S301
        assert (call, job.target.name) == (stage.run, "jetson-orin-nano-8gb")
    assert packed(lambda job: {}, None) is None
    assert [name for name in STAGES if load_stage(name).times_host] == ["compile", "verify", "measure", "weigh"]
