"""A report of a package by itself: what travels in it, where neither its manifest nor its store is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import Plain
from dlx_deploy.report.page.facts import Layers, LayerSeen, Models, Origin, StepSeen, Verdicts, overall
from dlx_deploy.report.page.judged import candidates_of
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.verification import Accuracy

__all__ = ["report_of_package"]

_NO_BUDGETS = ("max_drop", "confidence", "throughput_batch")
"""What stands among budgets and is none, or is judged in the package."""


class _Named(msgspec.Struct, frozen=True):
    name: str
    title: str = ""


class _Precision(msgspec.Struct, frozen=True):
    plan: str
    layers: dict[str, str] = {}


class _Recipe(msgspec.Struct, frozen=True):
    reason: str = ""


class _Measured(Accuracy, frozen=True, kw_only=True):
    """``accuracy.json`` as a package has it, with the gate that the drop passed."""

    gate: GateResult


class _Index(msgspec.Struct, frozen=True):
    """Of ``package.json`` what a report shows."""

    schema: int
    name: str
    version: str
    target: _Named
    precision: _Precision
    recipe: _Recipe
    accuracy: _Measured
    budgets: dict[str, float | bool | str]


class _Step(msgspec.Struct, frozen=True):
    """Of a step in the ``manifest.json`` of a package what a report shows."""

    key: str
    params: Plain = {}
    inputs: dict[str, str] = {}
    tool_versions: dict[str, str] = {}


class _Steps(msgspec.Struct, frozen=True):
    steps: dict[str, _Step]


def report_of_package(path: Path) -> BuildReport:
    """What ``path`` says of itself, every digest checked. Latencies, times and notes do not travel.

    Raises:
        PackageError: it is no package. ConfigError: it was made by other means, and says less than a report needs.
    """
    from dlx_deploy.runtime.package.archive import read_archive

    files = read_archive(path)
    try:
        index = msgspec.json.decode(files["package.json"], type=_Index)
        steps = msgspec.json.decode(files["manifest.json"], type=_Steps).steps
    except (KeyError, msgspec.MsgspecError, RecursionError) as e:
        raise ConfigError(
            f"{path}: its package.json and manifest.json hold no report ({e}); dlx-deploy inspect says what they do"
        ) from e
    gates = (index.accuracy.gate, *_unknown(index.budgets))
    layers = tuple(LayerSeen(name=name, precision=kind) for name, kind in index.precision.layers.items())
    return BuildReport(
        name=index.name,
        version=index.version,
        target=index.target.name,
        target_title=index.target.title,
        verdicts=Verdicts(outcome=overall("done", gates), status="done", error="", gates=gates, notes=()),
        models=_models(index, steps),
        layers=Layers(precision=index.precision.plan, reason=index.recipe.reason, samples=0, layers=layers),
        quantization=None,
        data_set=None,
        steps=tuple(_step(name, step) for name, step in steps.items()),
        origin=Origin(facts=_facts(path), tools=_tools(steps), config={}),
    )


def _unknown(budgets: Mapping[str, float | bool | str]) -> Iterator[GateResult]:
    """The other budgets that a package carries: what came of them is in the manifest beside it, or not judged yet."""
    for name, limit in budgets.items():
        if not limit or isinstance(limit, (str, bool)) or name in _NO_BUDGETS:
            continue
        text = f"{name} {limit:g}: what came of it does not travel in the package; the manifest beside it says so"
        yield GateResult(
            gate=name, metric=name, value=None, bound=None, limit=float(limit), verdict="pending", text=text
        )


def _models(index: _Index, steps: Mapping[str, _Step]) -> Models | None:
    try:
        data = msgspec.convert(steps["data"].params, Data)
    except (KeyError, msgspec.ValidationError):
        return None
    measured, confidence = index.accuracy, float(index.budgets.get("confidence", 0.95))
    return Models(
        title=measured.title,
        samples=measured.n,
        judge=measured.judge,
        confidence=confidence,
        max_drop=float(index.budgets["max_drop"]) if "max_drop" in index.budgets else None,
        latency_kind="",
        latency_where="",
        candidates=candidates_of(measured, comparison_by(task_for(data), measured.metric), confidence, {}),
    )


def _step(name: str, step: _Step) -> StepSeen:
    return StepSeen(
        step=name,
        status="",
        why="",
        key=step.key,
        started="",
        seconds=0.0,
        peak_memory_mib=None,
        size_bytes=0,
        metrics={},
        digests={},
        inputs=step.inputs,
        tools=step.tool_versions,
    )


def _facts(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    return {
        "package": path.name,
        "package size": f"{len(content):,} bytes",
        "package SHA-256": hashlib.sha256(content).hexdigest(),
    }


def _tools(steps: Mapping[str, _Step]) -> dict[str, str]:
    return dict(sorted((name, version) for step in steps.values() for name, version in step.tool_versions.items()))
