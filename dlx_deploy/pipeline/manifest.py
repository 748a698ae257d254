"""The manifest: one JSON per build, replaced atomically around every step that works: a dead build can be read."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import Plain
from dlx_deploy.pipeline.record import FinishedStep
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.schemas import newer_schema
from dlx_deploy.runtime.timing.histogram import Histogram

__all__ = [
    "SCHEMA",
    "BoardProof",
    "Manifest",
    "ProvenBudget",
    "ProvenLatency",
    "Status",
    "StepEntry",
    "latest_manifests",
    "now",
]

SCHEMA = 1


Status = Literal["ran", "cached"]
"""Whether a step ran in a build or was found in the store."""


class StepEntry(FinishedStep, frozen=True, kw_only=True):
    """One step of a build, and whether it ran in it."""

    status: Status
    why: str


class ProvenBudget(msgspec.Struct, frozen=True, kw_only=True):
    """One budget that a board judged: ``bound`` is what was held against ``limit``."""

    metric: str
    value: float | None
    bound: float | None
    limit: float
    verdict: Literal["pass", "fail", "undecided"]
    text: str


class ProvenLatency(msgspec.Struct, frozen=True, kw_only=True):
    """What a board's ``n`` timings came to, and how they are spread."""

    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    histogram: Histogram | None = None


class BoardProof(msgspec.Struct, frozen=True, kw_only=True):
    """What a board has shown of the package: ``taken`` (ISO 8601), by what it ran, its machine, its verdicts.

    ``parity``: how its answers compare with those of the builder. ``state``: its clocks and heat before, during and
    after what was timed; ``latency``: what its timings came to. ``None``: older runtimes do not say.
    """

    taken: str
    backend: str
    machine: dict[str, object]
    accuracy: Literal["pass", "fail", "undecided"]
    budgets: tuple[ProvenBudget, ...] = ()
    parity: Plain | None = None
    state: Plain | None = None
    latency: ProvenLatency | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A build: schema, tool version, configuration, target, steps so far, gates, and how it ended."""

    schema: int
    dlx_deploy: str
    target_name: str
    target: object
    config: object
    host: Plain
    started: str
    status: Literal["running", "done", "failed", "stopped by a gate", "interrupted", "killed"]
    error: str = ""
    steps: tuple[StepEntry, ...] = ()
    gates: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    device: Plain | None = None
    """What the device that was measured was when the build began; ``None``: nothing was measured."""
    proofs: dict[str, BoardProof] = {}
    """What boards have shown since, by what they are called."""


def now() -> str:
    """The time as ISO 8601 in UTC, to the microsecond."""
    return datetime.now(timezone.utc).isoformat()


def latest_manifests(store: Store) -> dict[str, Manifest]:
    """Target name → the manifest of its newest build; one that still says ``running`` and is dead says ``killed``.

    Raises:
        StoreError: a manifest was written by a newer dlx-deploy.
    """
    newest: dict[str, Manifest] = {}
    seen: set[str] = set()
    for path in sorted(store.root.glob("builds/*.json"), reverse=True):  # names: TIME-TARGET-PROCESS
        name = path.stem.partition("-")[2].rpartition("-")[0]
        if name in seen:
            continue
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError):
            continue
        refusal = newer_schema(manifest.schema, SCHEMA)
        if refusal:
            raise StoreError(f"{path}: {refusal}")
        if manifest.status == "running" and not _is_alive(path):
            manifest = msgspec.structs.replace(manifest, status="killed", error="its process is gone: build again")
        seen.add(name)
        newest.setdefault(manifest.target_name, manifest)
    return dict(reversed(newest.items()))


def _is_alive(manifest: Path) -> bool:
    """Whether the process that wrote this manifest, whose number ends its name, is still there."""
    try:
        os.kill(int(manifest.stem.rpartition("-")[2]), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True
