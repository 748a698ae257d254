"""What ``verify`` wrote on a board, read and held against itself, the package and its target: nothing is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.manifest import Manifest, ProvenBudget, ProvenLatency
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.files import read_file, reason
from dlx_deploy.runtime.machine import MACHINE_NAME
from dlx_deploy.runtime.words import line

__all__ = ["Proof", "ProofFile", "check_proof", "limits_of", "read_proof", "said_of"]

SCHEMA = 1
MAX_BYTES = 16 * 2**20
FLOORS = ("throughput",)
"""Metrics of which a budget is the least that there must be; of all others it is the most."""
METRICS = {
    "throughput": "min_throughput",
    "peak_memory_mib": "max_memory_mib",
    "package_mib": "max_size_mib",
    "energy_mj": "max_energy_mj",
    "cold_start_ms": "max_cold_start_ms",
}

ROUNDED = 1.001  # a histogram has fewer digits than its percentiles


class Proof(msgspec.Struct, frozen=True):
    """What a board has shown of a package. ``why``: there are no verdicts on budgets."""

    schema: int
    taken: str
    arch: str
    backend: str
    machine: dict[str, object]
    accuracy: Literal["pass", "fail", "undecided"]
    own_budgets: bool
    why: str
    budgets: tuple[ProvenBudget, ...]
    state: dict[str, object] | None = None
    latency: ProvenLatency | None = None


class _Of(msgspec.Struct, frozen=True):
    digest: str


class ProofFile(msgspec.Struct, frozen=True):
    """A proof, and of which package it is."""

    schema: int
    package: _Of
    proof: Proof
    parity: dict[str, object] | None = None


def read_proof(path: Path) -> ProofFile:
    """The proof in a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        data = read_file(path, MAX_BYTES)
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: the proof cannot be read ({reason(e)})") from e
    try:
        return msgspec.json.decode(data, type=ProofFile)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        why = line(str(e))
        write = "python X.dlx verify --data DIR --json > proof.json"
        raise ConfigError(f"{path} is no whole proof ({why}); write it on the board: {write}") from e


def check_proof(proof: Proof, limits: Mapping[str, float], manifest: Manifest, origin: str) -> None:
    """Refuses what contradicts itself, the package, whose budgets are ``limits``, or its target.

    Raises:
        ConfigError: says what, and what to do.
    """
    if proof.schema != SCHEMA:
        raise ConfigError(
            f"{origin}: the proof has schema {proof.schema}; rule: {SCHEMA}; use the package's own runtime"
        )
    target = manifest.target
    arch = target.get("arch") if isinstance(target, dict) else None
    if proof.arch != arch:
        raise ConfigError(f"{origin} is of a machine with {line(proof.arch)}, and {manifest.target_name} is {arch}")
    _check_board(proof, target, manifest.target_name, origin)
    if not proof.own_budgets:
        raise ConfigError(f"{origin} was judged by other budgets than the package's own; run verify without them")
    if proof.why:
        raise ConfigError(f"{origin} holds no verdict on budgets: {line(proof.why)}")
    _check_latency(proof.latency, origin)
    found = {one.metric: one for one in proof.budgets}
    if len(found) != len(proof.budgets):
        raise ConfigError(f"{origin} judges a budget twice; rule: once; write the proof again")
    if found and proof.accuracy != "pass":
        raise ConfigError(
            f"{origin} judges budgets of a package whose answers are said to {proof.accuracy}, which contradict each "
            "other: nothing is timed then"
        )
    wanted = limits if proof.accuracy == "pass" else {}
    if missing := wanted.keys() - found.keys():
        raise ConfigError(
            f"{origin} says nothing of {', '.join(sorted(missing))}; rule: of every budget of the package"
        )
    for metric, one in found.items():
        if one.limit != limits.get(metric):
            raise ConfigError(
                f"{origin}: {line(metric)} is held against {one.limit:g}; the budget is {limits.get(metric)}"
            )
        if not _fits(one):
            raise ConfigError(
                f"{origin}: {line(metric)} is said to {one.verdict} with a bound of {one.bound} and a budget of "
                f"{one.limit:g}, which contradict each other"
            )


def _check_latency(latency: ProvenLatency | None, origin: str) -> None:
    """Refuses timings that are none."""
    if latency is None:
        return
    times = (latency.p50_ms, latency.p90_ms, latency.p99_ms)
    if not all(math.isfinite(ms) and ms > 0 for ms in times) or list(times) != sorted(times) or latency.n < 1:
        raise ConfigError(
            f"{origin} has p50, p90 and p99 of {times} ms of {latency.n} timings; rule: finite, over 0, none above the "
            "next, of one timing or more; write the proof again"
        )
    spread = latency.histogram
    if spread is not None and not (
        spread.is_of(latency.n)
        and spread.fastest_ms <= latency.p50_ms * ROUNDED
        and latency.p99_ms <= spread.slowest_ms * ROUNDED
    ):
        raise ConfigError(f"{origin}: its histogram is not one of {latency.n} timings; write the proof again")


def _check_board(proof: Proof, target: object, name: str, origin: str) -> None:
    """Refuses another board than the target, as far as the profile says which it is, and a CPU in place of a GPU."""
    told = target if isinstance(target, dict) else {}
    model = str(told.get("device_tree_model") or "")
    if model not in said_of(proof, "board"):
        seen = said_of(proof, MACHINE_NAME) or "a machine without a name"
        raise ConfigError(
            f"{origin} is of {seen}, and {name} is {model}; run verify on that board, or build for a target of your "
            "own whose device_tree_model is part of what this one calls itself"
        )
    if told.get("kind") != "cpu" and proof.backend.endswith("-cpu") and proof.budgets:
        raise ConfigError(f"{origin}: {line(proof.backend)} is no GPU, and {name} has one; run verify on its GPU")


def _fits(one: ProvenBudget) -> bool:
    """Whether a verdict is what the bound says."""
    if one.bound is None:
        return one.verdict == "undecided"
    met = one.bound >= one.limit if one.metric in FLOORS else one.bound <= one.limit
    return {"pass": met, "fail": not met, "undecided": True}[one.verdict]


def limits_of(budgets: DeviceBudgets) -> dict[str, float]:
    """A package's budgets of resources by the metric that a proof has of each."""
    given = budgets.to_dict()
    return {metric: given[name] for metric, name in METRICS.items() if name in given}


def said_of(proof: Proof, key: str) -> str:
    """What the machine of a proof says of itself; empty where it does not."""
    value = proof.machine.get(key)
    return line(str(value))[:200] if value else ""
