"""Budgets that a device decides, where the machine that builds is the target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import load_config
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.samples import Samples
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Job, Output, Step
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.stages.measure import STAGE, MeasureParams
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target

from ..devices.fake import FakeDevice
from ..runtime.power.trees import hwmon
from .support.verifications import brightness

BUDGETS = ["gate.min_throughput=100", "gate.max_memory_mib=200", "gate.max_energy_mj=3", "gate.max_cold_start_ms=900"]
PROFILE = load_target("cpu-x86_64").profile


def verdict(metric: str, value: float | None, limit: float, decision: str) -> dict[str, Any]:
    text = f"{metric} is {value}"
    return {"metric": metric, "value": value, "bound": value, "limit": limit, "verdict": decision, "text": text}


SAYS = {
    "machine": {"label": "a board"},
    "resources": {"energy": None, "energy_unknown": "no sensor of the CPU is here"},
    "cold_start": {"p50_ms": 950.0},
    "judged": [
        verdict("latency_p50_ms", 2.0, 1.0, "fail"),
        verdict("throughput", 120.0, 100.0, "pass"),
        verdict("energy_mj", None, 3.0, "undecided"),
        verdict("peak_memory_mib", 210.0, 200.0, "fail"),
        verdict("cold_start_ms", 890.0, 900.0, "undecided"),
    ],
}


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """The board of ``PROFILE``, which can be reached."""
    device = FakeDevice(says=SAYS)
    for module in ("measure", "package"):
        monkeypatch.setattr(f"dlx_deploy.stages.{module}.device_for", lambda profile: device)
    return device


def steps(*overrides: str) -> dict[str, Step]:
    return {step.name: step for step in steps_for(load_config(None, overrides), PROFILE)}


def judged(folder: Path, device: FakeDevice | None, *overrides: str) -> list[GateResult]:
    (folder / "out").mkdir()
    step = steps(*overrides)["measure"]
    params = step.params
    assert isinstance(params, MeasureParams)
    metrics = STAGE.run(Job(params, {"package": folder / "p.dlx"}, folder / "out", device=device))
    assert step.gates
    return list(step.gates({"resources.json": folder / "out" / "resources.json"}, metrics))


def test_the_device_s_own_bench_decides(tmp_path: Path, at_home: FakeDevice) -> None:
    results = judged(tmp_path, at_home, *BUDGETS, "verify.rounds=50", "verify.threads=2")
    assert [(one.gate, one.verdict, one.value, one.bound) for one in results] == [
        ("throughput", "pass", 120.0, 120.0),
        ("memory", "fail", 210.0, 210.0),
        ("energy", "pending", None, None),
        ("cold_start", "undecided", 890.0, 890.0),
    ]
    assert results[2].text == "energy of an inference is not measured here: no sensor of the CPU is here; budget 3"
    assert results[3].text.endswith(", with another verify.rounds: what was measured is kept")
    command = ("bench", "--rounds=50", "--max-seconds=600", "--threads=2")
    assert at_home.asked == [("put", tmp_path / "p.dlx"), ("run_apart", "/there/p.dlx", *command)]


def test_it_is_a_step_where_such_a_budget_can_be_judged(at_home: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "measure" not in steps("gate.max_size_mib=5", "gate.max_latency_p50_ms=1")
    step = steps(*BUDGETS)["measure"]
    assert step.inputs == {"package": Output("package", "package.dlx")}
    assert (step.stage.measures_host, step.stage.times_host) == (True, True)
    assert step.params == MeasureParams(energy_unknown="no sensor")
    assert steps("gate.min_throughput=1")["measure"].params == MeasureParams()
    monkeypatch.setattr("dlx_deploy.stages.measure.device_for", lambda profile: None)
    assert "measure" not in steps(*BUDGETS)


@pytest.mark.parametrize("here", [True, False])
def test_the_package_leaves_pending_what_is_not_measured(
    tmp_path: Path, at_home: FakeDevice, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    if not here:
        monkeypatch.setattr("dlx_deploy.stages.package.device_for", lambda profile: None)
    (tmp_path / "package.dlx").write_bytes(b"\0" * 2**20)
    gates = steps(*BUDGETS, "gate.max_size_mib=5")["package"].gates
    assert gates
    found = [one.gate for one in gates({"package.dlx": tmp_path / "package.dlx"}, {})]
    assert found == ["size"] if here else ["size", "throughput", "memory", "energy", "cold_start"]


def test_a_budget_that_bench_did_not_judge_is_no_pass(tmp_path: Path, at_home: FakeDevice) -> None:
    with pytest.raises(ValueError, match="bench has not judged throughput by 99"):
        judged(tmp_path, at_home, "gate.min_throughput=99")


def test_a_package_that_does_not_run_is_said(tmp_path: Path, at_home: FakeDevice) -> None:
    class Broken(FakeDevice):
        def run_apart(self, package: str, command: Any) -> Any:
            raise BackendMissing("no provider")

    with pytest.raises(StageFailed, match=r"the package does not run on a board \(a CPU\): no provider"):
        judged(tmp_path, Broken(), *BUDGETS)
    (tmp_path / "out").rmdir()
    with pytest.raises(StageFailed, match="the target cannot be reached from here"):
        judged(tmp_path, None, *BUDGETS)


def test_this_machine_runs_it_in_a_process_of_its_own(tmp_path: Path) -> None:
    says = tmp_path / "says.dlx"
    says.write_text('import os, sys; print(\'{"pid": %d, "given": "%s"}\' % (os.getpid(), sys.argv[1:])); sys.exit(3)')
    answer = ThisMachine().run_apart(str(says), ["bench", "--threads=1"])
    assert answer["given"] == "['bench', '--threads=1', '--json']"
    assert answer["pid"] != os.getpid()
    says.write_text("import sys; sys.exit('error: no\\x1b[2J model')")
    with pytest.raises(BackendMissing, match=r"bench in a fresh process ended with exit code 1: error: no\S+ model"):
        ThisMachine().run_apart(str(says), ["bench"])


def test_sensors_are_those_of_the_machine(tmp_path: Path) -> None:
    here = ThisMachine(tmp_path / "proc", tmp_path / "sys")
    assert here.energy_unknown("cpu") == "no sensor of the CPU is here (INA3221 or RAPL)"
    zone = tmp_path / "sys" / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, value in {"name": "package-0", "energy_uj": "1000", "max_energy_range_uj": "262143328850"}.items():
        (zone / name).write_text(f"{value}\n")
    assert here.energy_unknown("cpu") == ""
    assert "NVML" in here.energy_unknown("gpu")


def test_a_model_s_energy_is_by_the_machine_s_sensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.runtime.timing.sustained.WINDOW_S", 1.3)
    (tmp_path / "model.onnx").write_bytes(brightness(TensorProto.FLOAT))
    sample = Samples({"images": np.ones((1, 1, 1, 1), np.uint8)})
    bare = ThisMachine(tmp_path / "proc", tmp_path / "sys").energy(tmp_path / "model.onnx", sample, 1)
    assert (bare.energy, bare.why) == (None, "no sensor of the CPU is here (INA3221 or RAPL)")
    hwmon(tmp_path / "sys", {"VDD_IN": (5000, 1000)})
    seen = ThisMachine(tmp_path / "proc", tmp_path / "sys").energy(tmp_path / "model.onnx", sample, 1).energy
    assert seen is not None
    assert (seen.sensors, round(seen.power_w, 6), round(seen.idle_w, 6)) == (("VDD_IN",), 5.0, 5.0)
    assert seen.inferences > 20
    assert abs(seen.per_inference_mj) < 1e-6
