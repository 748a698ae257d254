"""What one target's build came to."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from dlx_deploy.config import Config
from dlx_deploy.pipeline.execution import BuildResult
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.report.results import Results, read_results
from dlx_deploy.report.table import LOST, format_bytes, format_seconds
from dlx_deploy.runtime.words import line
from dlx_deploy.tasks.verification import REFERENCE

__all__ = ["BuildView", "Delivered", "EngineSummary", "PrecisionSummary", "view_build"]


class EngineSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What compiling came to: ``builder`` and ``layers`` where something was built, else ``reason``."""

    status: str
    builder: str | UnsetType = UNSET
    layers: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class PrecisionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is shipped, and why."""

    plan: str
    reason: str


class Delivered(NamedTuple):
    """What lies in the user's folder: the package, where an earlier one is now, the report; ``None``: there is none."""

    package: Path | None
    superseded: Path | None = None
    report: Path | None = None


class BuildView(msgspec.Struct, frozen=True, kw_only=True):
    """One target's build. ``package`` is None where a gate stopped it; ``superseded``: where an older one is now;
    ``report``: for people, None where it could not be written.

    ``data_lost``: what of the user's data was not used, or stands where it should not; metric → how many.
    """

    target: str
    status: str
    package: str | None
    superseded: str | None
    seconds: float
    ran: int
    cached: int
    results: Results
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    engine: EngineSummary
    precision: PrecisionSummary
    data_lost: dict[str, int]
    report: str | None = None
    size_bytes: int | UnsetType = UNSET
    teacher_size_ratio: float | UnsetType = UNSET

    @property
    def data(self) -> BuildView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The table of results, and what was made of it."""
        gates = [f"Gate {gate.gate}: {gate.verdict}." for gate in self.gates]
        lost = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.data_lost.items())
        data = [f"Data: {lost}."] if lost else []
        precision = f"Precision: {self.precision.plan.upper()}; {self.precision.reason}."
        done = f"{self.ran} stages ran, {self.cached} cached, {format_seconds(self.seconds)}"
        report = [f"Report: {line(self.report)}"] if self.report else []
        made = f"{self._made()}; {done}"
        return "\n".join([self.results.text, *gates, *data, precision, *self._engine(), *report, made])

    def _engine(self) -> list[str]:
        if self.engine.status == "none":
            return []
        shipped = self.engine.status == "shipped"
        done = "in the package, built" if shipped else "built on the board; compiled here as a check"
        return [f"Engine: {done} by {self.engine.builder}: {self.engine.layers}."]

    def _made(self) -> str:
        if self.package is not None and self.size_bytes and self.teacher_size_ratio:
            size = format_bytes(self.size_bytes)
            ratio = self.teacher_size_ratio
            # A package of a small network is larger than that: its golden answers may be one for each pixel.
            beside = f", the teacher's ONNX is {ratio:.1f} times as large" if ratio >= 1 else ""
            return f"{line(self.package)}  {size}{beside}"
        missed = ", ".join(gate.gate for gate in self.gates if gate.verdict in ("fail", "undecided"))
        moved = f"; that of an earlier build is now {self.superseded}" if self.superseded else ""
        return f"no package: a gate did not pass ({missed}){moved}"


def view_build(config: Config, result: BuildResult, delivered: Delivered) -> BuildView:
    """What a build came to, and what of it the user has."""
    package, superseded, report = delivered
    manifest, compiled = result.manifest, result.outputs["compile"]
    ran = sum(entry.status == "ran" for entry in manifest.steps)
    results = read_results(manifest.target_name, result.outputs["verify"], config, package is not None)
    recipe = msgspec.json.decode(compiled["recipe.json"].read_bytes())
    size = UNSET if package is None else package.stat().st_size
    teacher = next(row for row in results.rows if row.model == REFERENCE)
    return BuildView(
        target=manifest.target_name,
        status=manifest.status,
        package=None if package is None else str(package),
        superseded=str(superseded) if superseded else None,
        report=str(report) if report else None,
        seconds=manifest.seconds,
        ran=ran,
        cached=len(manifest.steps) - ran,
        results=results,
        gates=manifest.gates,
        notes=manifest.notes,
        engine=msgspec.json.decode((compiled["engine"] / "report.json").read_bytes(), type=EngineSummary),
        precision=PrecisionSummary(plan=recipe["precision"], reason=recipe["reason"]),
        data_lost=_lost(manifest),
        size_bytes=size,
        teacher_size_ratio=UNSET if size is UNSET else teacher.size_bytes / size,
    )


def _lost(manifest: Manifest) -> dict[str, int]:
    metrics = next((entry.metrics for entry in manifest.steps if entry.step == "data"), {})
    return {name: round(metrics[name]) for name in LOST if metrics.get(name)}
