"""The views of a package's commands: typed values, from which the text and the JSON are made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Optional, Sequence, Tuple

from ..backends.choice import possible_hazards
from ..errors import RuntimeFault
from ..files import PathLike
from ..package.contents import Package
from ..records import record
from ..tasks.judging import judging_of
from ..untyped import JsonTable
from ..views import lines_of
from ..words import line
from .parity import ParityResult
from .prediction_views import head_of
from .selftest import SelfTestResult
from .trusting import signature_rows

if TYPE_CHECKING:
    from ..engine.open import PreparedEngine

__all__ = ["EngineView", "PackageView", "SelfTestView", "parity_data"]


@record
class PackageView:
    """What a package is; ``path``: where it is, if that is to be said."""

    package: Package
    path: Optional[PathLike] = None
    failure: Optional[RuntimeFault] = None

    @property
    def data(self) -> JsonTable:
        """``package.json`` but for its list of files; the digest, the model's size, whether drift can be watched, and
        the hazards."""
        meta = {key: value for key, value in self.package.meta.items() if key != "files"}
        own: Dict[str, object] = {"digest": self.package.digest, "model_bytes": len(self.package.model)}
        own["drift"] = self.package.drift is not None
        if self.package.signed is not None:
            own["signature"] = {"by": self.package.signed.by, "file": self.package.signed.signature}
        hazards = [{"id": one.id, "where": one.where()} for one in possible_hazards(self.package)]
        return {**meta, **own, "hazards": hazards}

    @property
    def text(self) -> str:
        """A line for each thing that a user asks first."""
        package, budgets = self.package, self.package.budgets
        title = judging_of(package.task).title or "accuracy"
        drop = f"{title} drop {100 * budgets.max_drop:g} points at {budgets.confidence:g} confidence"
        floor = f"{title} from {100 * budgets.min_accuracy:g} %, " if budgets.min_accuracy else ""
        flips = f"changed answers up to {100 * budgets.max_flips:g} %, " if budgets.max_flips else ""
        flips += f"of each class {100 * budgets.max_class_drop:g} points, " if budgets.max_class_drop else ""
        flips += f"slices by {', '.join(map(line, budgets.slices.columns))}, " if budgets.slices.columns else ""
        limits = {90: 0.0, **package.latency_budgets}
        latency = ", ".join(f"p{p} {f'{ms:g} ms' if ms else 'unlimited'}" for p, ms in sorted(limits.items()))
        rows = [
            ("input", package.task.inputs.describe(package.batch)),
            *package.task.outputs.describe(),
            ("model", f"{len(package.model)} bytes{', run in exact Q/DQ arithmetic' if package.exact_qdq else ''}"),
            ("plan", self._plan()),
            ("budgets", f"{drop}, {floor}{flips}{latency}"),
            *([("drift", "carries what --drift needs")] if package.drift is not None else []),
            ("digest", package.digest),
            *signature_rows(package, self.path),
            *(("hazard", f"{one.title} on {one.where()} ({one.id})") for one in possible_hazards(package)),
            *self._way_in(),
        ]
        title = package.meta["target"].get("title") or package.target
        head = f"{package.name} {package.version} for {title}"
        return lines_of([head, *(f"{word:<8} {text}" for word, text in rows)])

    def _way_in(self) -> Sequence[Tuple[str, str]]:
        """What is typed into Python to have its predictor; a program writes these statements in lines."""
        if self.path is None:
            return ()
        where = repr(os.path.abspath(self.path))
        return [
            ("python", f"import sys; sys.path.insert(0, {where}); from dlx_runtime import load; predictor = load()")
        ]

    def _plan(self) -> str:
        """The precision plan, and what compiling it at build time showed."""
        meta = self.package.meta
        precision, compiled = str(meta["precision"]["plan"]), meta.get("engine", {})
        elsewhere = meta["recipe"].get("elsewhere", precision)
        plan = precision + (f", {elsewhere} elsewhere" if elsewhere != precision else "")
        if compiled.get("status") in ("shipped", "checked"):
            plan += f"; engine {compiled['status']}, {compiled['builder']}: {compiled['layers']}"
        return plan


@record
class EngineView:
    """The engine for this machine: what it is, what its layers compute in, and where it came from."""

    package: Package
    prepared: PreparedEngine
    failure: Optional[RuntimeFault] = None

    @property
    def data(self) -> JsonTable:
        """Where it came from, and its sidecar."""
        from ..engine.sidecar import to_dict

        return {**head_of(self.package), "origin": self.prepared.origin, "sidecar": to_dict(self.prepared.sidecar)}

    @property
    def text(self) -> str:
        """The engine, its layers, and what building it took."""
        from ..engine.table import PrecisionTable

        prepared, sidecar = self.prepared, self.prepared.sidecar
        where = sidecar.key.gpu or sidecar.key.compute_capability
        source = "build" if prepared.origin == "built" else prepared.origin
        lines = [
            f"{sidecar.key.flavour} {sidecar.key.version} for {where}, {len(prepared.plan)} bytes, from the {source}",
            f"layers   {PrecisionTable.from_dict(sidecar.precision).describe()}",
        ]
        if sidecar.build_s is not None and sidecar.peak_memory_mib is not None:
            lines.append(f"built in {sidecar.build_s:.1f} s, at most {sidecar.peak_memory_mib:.0f} MiB")
        return lines_of(lines)


@record
class SelfTestView:
    """A self-test whose golden samples agree, and how many more samples compare, if they were asked for."""

    package: Package
    result: SelfTestResult
    parity: Optional[ParityResult] = None

    @property
    def failure(self) -> Optional[RuntimeFault]:
        """The bounds on the other samples that are missed."""
        return self.parity.failure() if self.parity else None

    @property
    def data(self) -> JsonTable:
        """The verdict and the differences."""
        verdict = "fail" if self.failure else "pass"
        return {**head_of(self.package), "verdict": verdict, **self.result.to_dict(), **parity_data(self.parity)}

    @property
    def text(self) -> str:
        """What agreed, and how well."""
        shown = [self.package.task.outputs.agreement, *(output.describe() for output in self.result.outputs)]
        golden = f"self-test passed: {self.result.images} golden inputs, {', '.join(shown)}"
        return lines_of([golden, *([self.parity.describe()] if self.parity else [])])


def parity_data(parity: Optional[ParityResult]) -> Dict[str, object]:
    """What the JSON of a result says of the comparison with the builder's answers."""
    return {"parity": parity.to_dict()} if parity else {}
