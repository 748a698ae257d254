"""What a board has shown of a package, joined to the manifest beside it."""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dlx_deploy.delivery import deliver
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.execution import BuildResult
from dlx_deploy.pipeline.locks import locked
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.report.proofs import attach, proofs_beside
from dlx_deploy.report.proven import lines_of_proofs, settled_gates
from dlx_deploy.report.stores import view_status
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble, open_package
from dlx_deploy.runtime.timing.latency import summarise
from dlx_deploy.targets import load_target
from tests.runtime.conftest import make_images, metadata, tiny_contents

BUDGETS = {
    "max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 4.0, "min_throughput": 100, "throughput_batch": 8,
}  # fmt: skip


DOCUMENT = {
    "schema": 2, "stage": "package", "version": 8, "seed": 0, "params": {}, "inputs": {}, "outputs": [], "tools": {},
    "target": {}, "host": {},
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with two budgets of the board, and the manifest of its build beside it and in a store."""
    import hashlib

    contents = tiny_contents(*make_images(12))
    path = tmp_path / "x.dlx"
    write_archive(path, assemble(replace(contents, metadata=metadata(budgets=BUDGETS))))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    step = {
        "step": "package", "target_name": "board", "key": "k", "document": DOCUMENT, "metrics": {}, "started": "s",
        "seconds": 1.0, "tools": {}, "status": "ran", "why": "",
        "outputs": {"package.dlx": {"digest": digest, "size_bytes": 1, "files": {}}},
    }  # fmt: skip
    manifest = {
        "schema": 1, "dlx_deploy": "1", "target_name": "board", "target": {"arch": platform.machine()}, "config": {},
        "host": {}, "started": "2026-11-26T00:00:00+00:00", "status": "done", "steps": [step],
        "gates": [{"gate": "latency", "metric": "latency_p90_ms", "value": None, "bound": None, "limit": 4.0,
                   "verdict": "pending", "text": "pending"}],
    }  # fmt: skip
    path.with_suffix(".manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "store/builds").mkdir(parents=True)
    (tmp_path / "store/builds/20261126-board-7.json").write_text(json.dumps(manifest))
    return path


def proof_of(package: Path, **changes: Any) -> dict[str, Any]:
    budgets = [
        {"metric": "latency_p90_ms", "value": 3.0, "bound": 3.5, "limit": 4.0, "verdict": "pass", "text": "p90 met"},
        {"metric": "throughput", "value": 90.0, "bound": 95.0, "limit": 100.0, "verdict": "fail", "text": "missed"},
    ]
    proof = {
        "schema": 1, "taken": "2026-11-26T12:00:00+00:00", "arch": platform.machine(), "backend": "tensorrt",
        "machine": {"label": "NVIDIA Jetson Orin NX (8 cores)", "power_mode": "MAXN"}, "accuracy": "pass",
        "own_budgets": True, "why": "", "budgets": budgets, **changes,
    }  # fmt: skip
    return {"schema": 1, "package": {"digest": open_package(package).digest}, "proof": proof}


@pytest.fixture
def attached(package: Path, tmp_path: Path) -> Callable[[object], Any]:
    def write(proof: object) -> Any:
        path = tmp_path / "proof.json"
        path.write_text(proof if isinstance(proof, str) else json.dumps(proof))
        return attach(package, path, tmp_path / "store")

    return write


def test_a_proof_is_in_both_manifests_and_the_package_stays(
    package: Path, attached: Callable[[object], Any], tmp_path: Path
) -> None:
    before = package.read_bytes()
    view = attached(proof_of(package))
    assert view.board == "NVIDIA Jetson Orin NX (8 cores) MAXN"
    assert "  throughput: fail. missed" in view.text.splitlines()
    assert package.read_bytes() == before
    for path in (package.with_suffix(".manifest.json"), tmp_path / "store/builds/20261126-board-7.json"):
        proofs = msgspec.json.decode(path.read_bytes(), type=Manifest).proofs
        assert [one.verdict for one in proofs[view.board].budgets] == ["pass", "fail"]
    assert "on NVIDIA Jetson Orin NX (8 cores) MAXN, 2026-11-26T12:00:00+00:00, tensorrt: accuracy pass" in (
        lines_of_proofs(proofs_beside(package))
    )


def test_what_the_board_met_and_how_its_answers_compare_is_kept(
    package: Path, attached: Callable[[object], Any]
) -> None:
    met = {
        "slowest_mhz": 800.0,
        "fastest_mhz": 1500.0,
        "hottest_c": 61.5,
        "noise": ["its cores were throttled 2 times"],
    }
    parity = {"verdict": "pass", "samples": 40, "sqnr_db": 61.25, "differing": 0}
    attached({**proof_of(package, state={**met, "before": {}}), "parity": parity})
    assert lines_of_proofs(proofs_beside(package))[1:3] == [
        "  parity with the builder: pass, 40 samples, SQNR 61.25 dB, 0 decided otherwise",
        "  clocked 800 to 1500 MHz, at most 62 °C, its cores were throttled 2 times",
    ]


def timed(n: int = 40, **changes: Any) -> dict[str, Any]:
    seen = msgspec.to_builtins(summarise([1_000_000 + i for i in range(40)]))
    return {**{name: seen[name] for name in ("p50_ms", "p90_ms", "p99_ms", "histogram")}, "n": n, **changes}


def test_how_a_boards_timings_are_spread_is_kept(package: Path, attached: Callable[[object], Any]) -> None:
    attached(proof_of(package, latency=timed()))
    (proof,) = proofs_beside(package).values()
    assert proof.latency is not None
    assert proof.latency.histogram is not None
    assert proof.latency.histogram.is_of(40)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0, "histogram": None},
        {"p50_ms": 2.0, "p90_ms": 1.0},
        {"p90_ms": 3.0, "p99_ms": 2.0},
        {"p50_ms": 0.001},
        {"p99_ms": 1000.0},
    ],
)
def test_timings_that_contradict_themselves_are_refused(
    package: Path, attached: Callable[[object], Any], changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="write the proof again"):
        attached(proof_of(package, latency=timed(**changes)))


def test_two_boards_live_side_by_side_and_the_same_one_is_replaced(
    package: Path, attached: Callable[[object], Any]
) -> None:
    attached(proof_of(package))
    attached(proof_of(package, machine={"label": "another", "power_mode": None}))
    attached(proof_of(package, taken="later"))
    taken = {board: proof.taken for board, proof in proofs_beside(package).items()}
    assert taken == {"NVIDIA Jetson Orin NX (8 cores) MAXN": "later", "another": "2026-11-26T12:00:00+00:00"}


def test_a_pending_gate_is_settled_by_each_board(package: Path, attached: Callable[[object], Any]) -> None:
    path = package.with_suffix(".manifest.json")
    attached(proof_of(package))
    slow = proof_of(package, machine={"label": "old"})
    attached(tampered(slow, 0, bound=9.0, verdict="fail", text="too slow"))
    gates = settled_gates(msgspec.json.decode(path.read_bytes(), type=Manifest))
    assert [(one.gate, one.verdict) for one in gates] == [("latency", "pass"), ("latency", "fail")]
    assert gates[1].text == "on old: too slow"


def test_a_board_on_which_answers_are_wrong_is_no_pass(package: Path, attached: Callable[[object], Any]) -> None:
    path = package.with_suffix(".manifest.json")
    attached(proof_of(package))
    attached(proof_of(package, accuracy="fail", budgets=[], machine={"label": "old"}))
    gates = settled_gates(msgspec.json.decode(path.read_bytes(), type=Manifest))
    assert [(one.gate, one.verdict) for one in gates] == [("latency", "pass"), ("board", "fail")]
    assert gates[1].text.startswith("on old: the package's answers are judged fail")


def test_another_board_than_the_profile_names_is_refused(package: Path, attached: Callable[[object], Any]) -> None:
    path = package.with_suffix(".manifest.json")
    known = json.loads(path.read_text())
    known["target"] |= {"kind": "cpu", "device_tree_model": "Raspberry Pi 5"}
    path.write_text(json.dumps(known))
    with pytest.raises(ConfigError, match=r"is of Neoverse, and board is Raspberry Pi 5; run verify on that board"):
        attached(proof_of(package, machine={"label": "Neoverse", "board": None}, backend="ort-cpu"))
    attached(proof_of(package, machine={"label": "Pi", "board": "Raspberry Pi 5 Model B"}, backend="ort-cpu"))
    assert list(proofs_beside(package)) == ["Pi"]


def test_an_agx_settles_no_gate_of_a_nano(package: Path, attached: Callable[[object], Any]) -> None:
    """By the profile that ships; of a target whose profile names no board the verdict says that it was not checked."""
    path = package.with_suffix(".manifest.json")
    known = json.loads(path.read_text())
    nano, nameless = load_target("jetson-orin-nano-8gb").profile, load_target("jetson-nano").profile
    agx = {"label": "AGX", "board": "NVIDIA Jetson AGX Orin Developer Kit"}
    named = {"kind": nano.kind, "device_tree_model": nano.device_tree_model}
    path.write_text(json.dumps({**known, "target": {**known["target"], **named}}))
    with pytest.raises(ConfigError, match=r"is of AGX, and board is Orin Nano; .*whose device_tree"):
        attached(proof_of(package, machine=agx))
    attached(proof_of(package, machine={**agx, "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"}))
    (gate,) = settled_gates(msgspec.json.decode(path.read_bytes(), type=Manifest))
    assert gate.text == "on AGX: p90 met"
    sized = {**named, "memory_gib": nano.memory_gib}
    assert load_target("jetson-orin-nano-4gb").profile.device_tree_model == nano.device_tree_model, "of another memory"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": {**known["target"], **sized}}))
    (gate,) = settled_gates(msgspec.json.decode(path.read_bytes(), type=Manifest))
    assert gate.text == "on AGX (its memory was not checked: board has 8 GiB): p90 met"

    assert nameless.device_tree_model == ""
    path.write_text(json.dumps({**known, "target": {**known["target"], "kind": nameless.kind}}))
    attached(proof_of(package, machine=agx))
    (gate,) = settled_gates(msgspec.json.decode(path.read_bytes(), type=Manifest))
    assert gate.text == "on AGX (not checked to be board: its profile has no device_tree_model): p90 met"


def tampered(proof: dict[str, Any], place: int, **changes: Any) -> dict[str, Any]:
    proof["proof"]["budgets"][place].update(changes)
    return proof


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: {**p, "package": {"digest": "f" * 64}}, "is of the package ffffffffffff, and .* rule: of the same"),
        (
            lambda p: tampered(p, 0, bound=4.5),
            "latency_p90_ms is said to pass with a bound of 4.5 and a budget of 4, wh",
        ),
        (
            lambda p: tampered(p, 1, verdict="pass"),
            "throughput is said to pass with a bound of 95.0 and a budget of 100",
        ),
        (lambda p: tampered(p, 1, bound=None), "throughput is said to fail with a bound of None"),
        (lambda p: tampered(p, 0, limit=9.0), "latency_p90_ms is held against 9; the budget is 4.0"),
        (lambda p: tampered(p, 0, metric="other"), "says nothing of latency_p90_ms; rule: of every budget"),
        (lambda p: p["proof"].update(budgets=[]) or p, "says nothing of latency_p90_ms, throughput"),
        (lambda p: p["proof"].update(arch="mips") or p, "is of a machine with mips, and board is "),
        (lambda p: p["proof"].update(schema=0) or p, "the proof has schema 0; rule: 1"),
        (lambda p: p["proof"].update(own_budgets=False) or p, "judged by other budgets than the package's own"),
        (lambda p: p["proof"].update(why="this machine is no board") or p, "no verdict on budgets: this machine is no"),
        (
            lambda p: p["proof"].update(accuracy="fail") or p,
            "of a package whose answers are said to fail, which contra",
        ),
        (lambda p: p["proof"]["budgets"].append(p["proof"]["budgets"][0]) or p, "judges a budget twice; rule: once"),
        (
            lambda p: p["proof"].update(backend="ort-cpu") or p,
            "ort-cpu is no GPU, and board has one; run verify on its",
        ),
        (
            lambda p: p["proof"].update(latency=timed(n=41)) or p,
            "its histogram is not one of 41 timings; write the proo",
        ),
        (
            lambda p: p["proof"].update(latency=timed(p99_ms=0.0)) or p,
            r"has p50, p90 and p99 of \(.*0.0\) ms of 40 timings; rule: finite",
        ),
        (lambda p: json.dumps(p)[:200], "is no whole proof"),
        (lambda p: {"schema": 1}, "is no whole proof .*package"),
        (lambda p: "[" * 100_000, "is no whole proof"),
    ],
)
def test_what_is_refused(
    package: Path, attached: Callable[[object], Any], change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        attached(change(proof_of(package)))
    assert proofs_beside(package) == {}


def test_a_manifest_of_another_package_takes_no_proof(package: Path, attached: Callable[[object], Any]) -> None:
    path = package.with_suffix(".manifest.json")
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    with pytest.raises(ConfigError, match="is the manifest of another package than"):
        attached(proof_of(package))
    path.unlink()
    with pytest.raises(ConfigError, match="no manifest of a build is there"):
        attached(proof_of(package))


def test_a_build_of_the_same_bytes_keeps_proofs_and_one_of_others_does_not(
    package: Path, attached: Callable[[object], Any], tmp_path: Path
) -> None:
    attached(proof_of(package))
    manifest = msgspec.json.decode(package.with_suffix(".manifest.json").read_bytes(), type=Manifest)
    fresh = msgspec.structs.replace(manifest, proofs={}, started="again")
    stored = tmp_path / "stored.dlx"
    stored.write_bytes(package.read_bytes())
    outputs = {"package": {"package.dlx": stored}}
    deliver(cast(BuildResult, SimpleNamespace(manifest=fresh, outputs=outputs)), package)
    assert len(proofs_beside(package)) == 1
    stored.write_bytes(b"another")
    deliver(cast(BuildResult, SimpleNamespace(manifest=fresh, outputs=outputs)), package)
    assert msgspec.json.decode(package.with_suffix(".manifest.json").read_bytes(), type=Manifest).proofs == {}


def test_status_shows_them_after_a_build_of_the_same_bytes(
    package: Path, attached: Callable[[object], Any], tmp_path: Path
) -> None:
    attached(proof_of(package))
    store = tmp_path / "store"
    earlier = store / "builds/20261126-board-7.json"
    text = earlier.read_text()
    again = msgspec.structs.replace(
        msgspec.json.decode(text, type=Manifest), proofs={}, started="2026-11-27T00:00:00+00:00", status="done"
    )
    later = store / "builds/20261127-board-8.json"
    later.write_bytes(msgspec.json.encode(again))
    (store / "builds/20261126-board-2-9.json").write_text(text.replace("MAXN", "of another target"))
    (manifest,) = view_status(store).data.values()
    assert manifest.started == again.started
    assert list(manifest.proofs) == ["NVIDIA Jetson Orin NX (8 cores) MAXN"]
    later.write_text(later.read_text().replace(manifest.steps[0].outputs["package.dlx"].digest, "f" * 64))
    (manifest,) = view_status(store).data.values()
    assert manifest.proofs == {}


def test_two_who_attach_at_once_lose_nothing(
    package: Path, attached: Callable[[object], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()
    monkeypatch.setattr("dlx_deploy.report.proofs._log.warning", lambda *text: waits.set())
    path, proof = package.with_suffix(".manifest.json"), proof_of(package)
    with ThreadPoolExecutor(1) as pool:
        with locked(path, lambda: None):
            other = pool.submit(attached, proof)
            assert waits.wait(30)
            manifest = json.loads(path.read_text())
            first = {**proof["proof"], "budgets": []}
            write_atomically(path, json.dumps({**manifest, "proofs": {"the first": first}}).encode(), 0o644)
        second = other.result(30).board
    assert set(proofs_beside(package)) == {"the first", second}


def test_a_package_that_was_built_again_meanwhile_gets_no_proof_of_the_earlier_one(
    package: Path, attached: Callable[[object], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()
    monkeypatch.setattr("dlx_deploy.report.proofs._log.warning", lambda *text: waits.set())
    path, proof = package.with_suffix(".manifest.json"), proof_of(package)
    old, new = (hashlib.sha256(data).hexdigest() for data in (package.read_bytes(), b"another"))
    with ThreadPoolExecutor(1) as pool:
        with locked(path, lambda: None):
            other = pool.submit(attached, proof)
            assert waits.wait(30)
            write_atomically(path, path.read_text().replace(old, new).encode(), 0o644)
            package.write_bytes(b"another")
        with pytest.raises(ConfigError, match="was built again meanwhile; run verify with the new package"):
            other.result(30)
    assert proofs_beside(package) == {}
