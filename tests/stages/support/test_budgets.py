"""Budgets that nothing meets, or that contradict each other, are said before a build works for them."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest

from dlx_deploy.building import load_work
from dlx_deploy.config import Config, Gate, load_config
from dlx_deploy.devices.local import ThisMachine
from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.search.hopeless import check_budgets, hopeless
from dlx_deploy.stages import verify
from dlx_deploy.stages.support import budgets, rehearsal
from dlx_deploy.stages.support.budgets import budget_notes, least_start_ms, rehearse_latency
from dlx_deploy.targets import Profile, load_target

from ...onnx_fixtures import residual_net
from .verifications import outputs


def profile(name: str) -> Profile:
    return load_target(name).profile


def notes(*overrides: str, targets: tuple[str, ...] = ("jetson",)) -> list[str]:
    return budget_notes(load_config(None, overrides), [profile(name) for name in targets])


def test_a_latency_below_the_start_of_one_layer_is_said_in_a_plan(tmp_path: Path) -> None:
    work = load_work(None, ["jetson"], ["gate.max_latency_p90_ms=0.000001"], tmp_path / ".dlx")
    (note,) = (note for note in work.notes if "gate.max_latency_p90_ms" in note)
    assert note.startswith(
        "gate.max_latency_p90_ms is 1e-06, and on jetson-orin-nano-8gb a single layer takes "
        f"{least_start_ms(profile('jetson')):.3g} ms or more to start (half of the roofline, an estimate): no build is"
    )
    assert "the gate stays pending until the board measures it; the least that could be met is" in note
    assert notes() == notes("gate.max_latency_p90_ms=5") == []
    assert [note[:24] for note in notes("gate.max_latency_p50_ms=1e-6", "gate.max_latency_p99_ms=1e-6")] == [
        "gate.max_latency_p50_ms ",
        "gate.max_latency_p99_ms ",
    ]


@pytest.mark.usefixtures("network")
def test_of_this_machine_nothing_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its roofline is an estimate, and a network may be faster; a build times it."""
    tight = Config(gate=Gate(max_latency_p90_ms=1e-6))
    cpu = profile("cpu-x86_64")
    monkeypatch.setattr(budgets, "device_for", lambda _: None)
    assert len(budget_notes(tight, [cpu])) == 1
    assert [miss.budget for miss in hopeless(tight, cpu)] == ["gate.max_latency_p90_ms"]
    monkeypatch.setattr(budgets, "device_for", lambda _: ThisMachine())
    assert budget_notes(tight, [cpu]) == []
    check_budgets(tight, cpu)
    assert hopeless(tight, cpu) == ()


@pytest.mark.parametrize(
    ("overrides", "target", "said"),
    [
        (["quantize.max_drop=0.6", "gate.max_drop=0.5"], "jetson", True),
        (["quantize.max_drop=0.5", "gate.max_drop=0.5"], "jetson", False),
        (["gate.max_drop=0.5"], "jetson", False),
        (["quantize.max_drop=0.6", "quantize.precision=fp16"], "jetson", False),
        (["quantize.max_drop='off'"], "jetson", False),
    ],
)
def test_a_budget_of_int8_that_is_wider_than_the_gate_s(overrides: list[str], target: str, said: bool) -> None:
    found = notes(*overrides, targets=(target,))
    assert len(found) == said
    if said:
        assert found[0] == (
            "quantize.max_drop is 0.6 and gate.max_drop 0.5: INT8 that keeps to the first on validation is taken, and "
            "the gate may refuse it; set quantize.max_drop to 'gate', or to 0.5 or less"
        )


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the network of the configuration, as it would be exported."""
    path = tmp_path / "model.onnx"
    path.write_bytes(residual_net().SerializeToString())
    monkeypatch.setattr(rehearsal, "untrained", lambda _: contextlib.nullcontext(path))
    return path


def said_of(limit_ms: float, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    config = load_config(None, [f"gate.max_latency_p90_ms={limit_ms:g}"])
    with caplog.at_level(logging.WARNING):
        rehearse_latency(Setup(config, {}, config, profile("jetson")))
    return [record.getMessage() for record in caplog.records if record.name == budgets.__name__]


@pytest.mark.usefixtures("network")
def test_a_latency_below_that_of_the_network_is_said_before_it_is_trained(caplog: pytest.LogCaptureFixture) -> None:
    (note,) = said_of(0.005, caplog)
    assert "gate.max_latency_p90_ms is 0.005, and on jetson-orin-nano-8gb the network takes " in note
    assert "ms or more in its lowest precision (half of the roofline, an estimate): no build is expected" in note
    assert verify.STAGE.rehearse is rehearse_latency
    assert not said_of(100.0, caplog)
    assert not said_of(1e-6, caplog), "the plan has said it"


def test_a_network_that_cannot_be_made_stops_no_build_here(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes it says so."""

    def raising(_: Setup[Config]) -> None:
        raise StageFailed("too much is removed")

    monkeypatch.setattr(rehearsal, "untrained", raising)
    assert not said_of(0.005, caplog)


@pytest.mark.parametrize(("limit_ms", "kind", "said"), [(0.5, "x", True), (0.7, "x", False), (0.5, "measured", False)])
def test_a_pending_budget_far_below_the_estimate_is_said(
    tmp_path: Path, limit_ms: float, kind: str, said: bool
) -> None:
    estimate = {"p90_ms": None, "p90_upper_ms": None, "low_ms": 0.6, "high_ms": 1.8, "kind": kind}
    files = outputs(tmp_path, 0, 0, **estimate)
    found = [note for note in verify.notes(Config(gate=Gate(max_latency_p90_ms=limit_ms)), files, {}) if "ms" in note]
    assert len(found) == said
    if said:
        assert found[0].startswith("quantized takes 0.6 ms or more on a board by half of the roofline (an estimate), ")
        assert "the gate is pending here, and is expected to fail where it is measured" in found[0]
