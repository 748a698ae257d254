"""What a machine that runs a package has shown of its budgets: a part of ``verify --json`` that a build takes in.

``dlx-deploy verify X.dlx --attach proof.json`` reads it (docs/manifest.md).
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Dict, Optional, Tuple

from ..errors import RuntimeFault
from ..machine import machine_info
from ..package.contents import Package
from ..predictor import Predictor
from ..records import record, replace
from ..statistics.drops import Decision
from ..timing.latency import Latency
from ..timing.state import MachineState
from ..timing.verdicts import Judged
from ..untyped import JsonTable
from .bench import BenchOptions, bench_package

__all__ = ["SCHEMA", "Proof", "take_proof"]

SCHEMA = 1
DECISIONS: Dict[int, Decision] = {3: "fail", 6: "undecided"}


@record
class Proof:
    """``accuracy``: the verdict on the package's answers. ``budgets``: those of latency and of resources, judged here.

    ``own_budgets``: by the package's own budgets. ``why``: why budgets were not judged; empty where they were, or where
    there are none. ``state``: what the machine did while they were timed: its clocks and heat before,
    meanwhile, after; ``latency``: what the timings came to.
    """

    taken: str
    arch: str
    backend: str
    machine: JsonTable
    accuracy: Decision
    budgets: Tuple[Judged, ...] = ()
    why: str = ""
    own_budgets: bool = True
    state: Optional[MachineState] = None
    latency: Optional[Latency] = None
    fault: Optional[RuntimeFault] = None

    def to_dict(self) -> Dict[str, object]:
        """The proof as JSON has it."""
        own = {
            name: getattr(self, name)
            for name in ("taken", "arch", "backend", "machine", "accuracy", "own_budgets", "why")
        }
        met = {"state": asdict(self.state)} if self.state else {}
        if self.latency:
            timed = asdict(self.latency)
            met["latency"] = {name: timed[name] for name in ("n", "p50_ms", "p90_ms", "p99_ms", "histogram")}
        return {**own, **met, "schema": SCHEMA, "budgets": [asdict(one) for one in self.budgets]}

    def lines(self) -> Tuple[str, ...]:
        """Each budget's verdict."""
        met = self.state.describe() if self.state else ""
        told = [*(one.text for one in self.budgets), *([f"meanwhile: {met}"] if met else [])]
        return (*told, *([f"budgets are not judged: {self.why}"] if self.why else []))


def take_proof(predictor: Predictor, accuracy: Optional[RuntimeFault], own_budgets: bool) -> Proof:
    """Judge the package's budgets of this machine, if it is one that the package was built for.

    ``accuracy``: what is wrong with its answers, if something is: then nothing is timed.
    """
    package = predictor.package
    verdict: Decision = DECISIONS.get(accuracy.exit_code, "fail") if accuracy else "pass"
    proof = Proof(
        taken=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        arch=platform.machine(),
        backend=predictor.backend.name,
        machine=machine_info(),
        accuracy=verdict,
        why=_why_not(package, predictor.backend.name),
        own_budgets=own_budgets,
    )
    if proof.why or accuracy or not (package.latency_budgets or package.device_budgets.is_set):
        return proof
    seen = bench_package(predictor, BenchOptions(max_ms=package.latency_budgets, device=package.device_budgets))
    return replace(proof, budgets=seen.judged, state=seen.state, latency=seen.latency, fault=seen.failure())


def _why_not(package: Package, backend: str) -> str:
    """Why this machine cannot decide of the package's budgets; empty where it can, or where there are none."""
    target = package.meta["target"]
    if not (package.latency_budgets or package.device_budgets.is_set):
        return ""
    arch, here = target.get("arch", platform.machine()), platform.machine()
    if arch != here:
        return f"this machine is {here}, and {package.target} is {arch}: run verify on that board"
    if target.get("kind") != "cpu" and backend.endswith("-cpu"):
        return f"{backend} runs the model here, and not a GPU as on {package.target}: run verify on that board"
    return ""
