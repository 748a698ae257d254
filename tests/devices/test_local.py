"""This machine as a device: what it is, and what it measures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

import dlx_deploy
from dlx_deploy.devices.choice import device_for, has_gpu_of
from dlx_deploy.devices.device import Device
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.timing.sampling import Sampling
from dlx_deploy.targets import is_this_host, list_targets, load_target, read_host

from ..conftest import PACKAGE

ROOT = Path(dlx_deploy.__file__).parent


def machine(folder: Path, **files: str) -> ThisMachine:
    """A machine whose ``/proc`` and ``/sys`` hold these files."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ThisMachine(folder / "proc", folder / "sys")


def test_what_a_machine_says_of_itself(tmp_path: Path) -> None:
    gpu = tmp_path / "proc" / "driver" / "nvidia" / "gpus" / "0000:01:00.0" / "information"
    gpu.parent.mkdir(parents=True)
    gpu.write_text("Model: \t\t NVIDIA L4\nIRQ: 16\n")
    policy = "sys__devices__system__cpu__cpu0__cpufreq__"
    seen = machine(
        tmp_path,
        proc__cpuinfo="processor\t: 0\nmodel name\t: Some CPU\n",
        proc__meminfo="MemTotal:  4096 kB\nMemAvailable:    2048 kB\n",
        **{f"{policy}scaling_cur_freq": "1512000\n", f"{policy}scaling_governor": "schedutil\n"},
    )
    facts = seen.facts()
    assert (facts.cpu_model, facts.gpus, facts.free_memory_mib) == ("Some CPU", ("NVIDIA L4",), 2)
    assert (facts.clock_mhz, facts.governor) == (1512.0, "schedutil")
    assert facts.versions["numpy"] == np.__version__
    assert facts.free_disk_mib is not None
    assert seen.name == "this machine (Some CPU)"


def test_what_cannot_be_read_is_not_made_up(tmp_path: Path) -> None:
    facts = machine(tmp_path, proc__meminfo="nonsense", proc__cpuinfo="").facts()
    assert (facts.cpu_model, facts.gpus, facts.clock_mhz, facts.governor, facts.free_memory_mib) == (
        "unknown",
        (),
        None,
        None,
        None,
    )
    assert msgspec.json.decode(msgspec.json.encode(facts), type=type(facts)) == facts


def test_only_a_target_that_is_here_is_a_device() -> None:
    devices = {profile.name: device_for(profile) for profile in list_targets()}
    assert {name for name, device in devices.items() if device} == {p.name for p in list_targets() if is_this_host(p)}
    assert devices["jetson-orin-nano-8gb"] is None
    here = device_for(msgspec.structs.replace(load_target("cpu-x86_64").profile, arch=read_host().arch))
    assert here is not None
    assert here.identity == msgspec.to_builtins(read_host())


@pytest.mark.parametrize(("seen", "expected"), [("8.0", True), ("8.7", False)])
def test_whose_gpu_is_here(monkeypatch: pytest.MonkeyPatch, seen: str, expected: bool) -> None:
    profile = load_target("a100").profile
    assert profile.compute_capability == "8.0"
    monkeypatch.setattr("dlx_deploy.devices.choice.find_spec", lambda name: object())
    machine = SimpleNamespace(compute_capability=seen, arch=profile.arch)
    monkeypatch.setattr("dlx_deploy.runtime.engine.sidecar.this_machine", lambda *arguments: machine)
    assert has_gpu_of(profile) is expected

    def refuse(*arguments: object) -> None:
        raise BackendMissing("no driver")

    monkeypatch.setattr("dlx_deploy.runtime.engine.sidecar.this_machine", refuse)
    assert not has_gpu_of(profile)
    monkeypatch.setattr("dlx_deploy.devices.choice.find_spec", lambda name: None)
    assert not has_gpu_of(profile)


def test_a_package_is_run_and_models_are_timed(built: Path, tmp_path: Path) -> None:
    here: Device = ThisMachine()
    there = here.put(built / PACKAGE)
    outcome = here.run(there, ["bench", "--rounds", "40"])
    assert outcome.data["latency"]["n"] == 40
    assert outcome.data["package"]["name"] == "digits"
    package = open_package(there)
    (tmp_path / "model.onnx").write_bytes(package.model)
    row = Samples(package.golden_inputs)[:1]
    latencies = here.latencies(
        {"a": tmp_path / "model.onnx", "b": tmp_path / "model.onnx"}, row, Sampling(40), 1
    ).latencies
    assert [latencies[name].n for name in ("a", "b")] == [40, 40]
    assert latencies["a"].p50_ms > 0


@pytest.mark.parametrize("name", ["is_this_host"])
def test_nothing_else_asks_whether_the_target_is_here(name: str) -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if name in path.read_text(encoding="utf-8")}
    assert rooms == {"devices", "targets"}
