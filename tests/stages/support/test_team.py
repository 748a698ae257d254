"""What the first process says when a worker is gone: whoever notices first."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.pipeline.view import seen_by
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.stages.support import team as module
from dlx_deploy.stages.support.team import Team
from dlx_deploy.targets import load_target

GLOO = "[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4711"
"""What gloo says in the first process; it comes when the worker's socket closes, before the worker has ended."""


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """A team of two without a process group, whose job is never sent."""
    team = Team(2)
    team._group = "no group"
    monkeypatch.setattr(module, "_leave", lambda group, silent: None)
    yield team
    team.abandon()
    team.close()


def worker(team: Team, code: str) -> None:
    with open(f"{team._talk.path}/{len(team._workers) + 1}.log", "wb") as log:
        team._workers.append(subprocess.Popen([sys.executable, "-c", code], stderr=log))


def job(tmp_path: Path) -> Job:
    return Job(params=load_stage("logits").params(), inputs={}, out=tmp_path)


def test_workers_see_of_the_target_what_the_first_process_sees(tmp_path: Path) -> None:
    stage = load_stage("qat")
    view = seen_by("qat", load_target("jetson").profile, stage.uses)
    asked = Job(params=stage.params(), inputs={}, out=tmp_path, target=view)
    received = pickle.loads(pickle.dumps(module._message(stage, asked)))["job"]  # noqa: S301  # our own bytes
    assert received.target.quantization == view.quantization
    with pytest.raises(AttributeError, match=r"stage 'qat' reads target\.opset; its uses are kind, quantization"):
        _ = received.target.opset


def fails_with(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(module, "_send", fail)


def test_a_worker_that_ends_after_its_connection_did_is_named(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(team, "import sys, time; time.sleep(0.5); sys.exit('error: no room')")
    fails_with(GLOO, monkeypatch)
    with pytest.raises(StageFailed, match=r"^a worker stopped; process 1: error: no room$"):
        team.run(load_stage("logits"), job(tmp_path))


def test_the_signal_that_ended_it_is_named(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(team, "import time; time.sleep(60)")
    worker(team, "import os, signal, time; time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)")
    fails_with(GLOO, monkeypatch)
    with pytest.raises(StageFailed, match=r"^a worker stopped; process 2: SIGKILL, no output$"):
        team.run(load_stage("logits"), job(tmp_path))


def test_nobody_is_waited_for_where_the_error_is_another(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(team, "import time; time.sleep(60)")
    fails_with("mat1 and mat2 shapes cannot be multiplied", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            team.run(load_stage("logits"), job(tmp_path))


def test_a_lost_connection_to_workers_that_live_is_told_as_it_is(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(team, "import time; time.sleep(60)")
    monkeypatch.setattr(module, "PASSING_S", 0.1)
    fails_with(GLOO, monkeypatch)
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        team.run(load_stage("logits"), job(tmp_path))


def test_a_worker_that_never_joins_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: no torch here' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")  # put back afterwards: the first process takes a place too
    team = Team(2)
    try:
        with pytest.raises(StageFailed, match=r"^a worker stopped; process 1: ImportError: no torch here$"):
            team.run(load_stage("logits"), job(tmp_path))
    finally:
        team.abandon()
        team.close()
