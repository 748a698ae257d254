"""The commands as functions: each gives back its data, its text and its failure, and prints nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from ..errors import RuntimeFault
from ..package.contents import Package
from ..predictor import PathLike, Predictor
from ..schemas import RESULT
from ..tasks.task import Budgets, PredictOptions
from ..words import line
from .asked import listed
from .bench import BenchOptions, bench_package
from .selftest import self_test
from .verify import teacher_outputs, verify_package

__all__ = ["Outcome", "VerifyOptions", "bench", "engine", "inspect", "listed", "predict", "selftest", "verify"]

BLOCK = 64  # samples read and run at a time


@dataclass(frozen=True)
class Outcome:
    """What a command gives: ``data`` for ``--json``, ``text`` for people, ``failure`` if a gate did not pass."""

    data: Mapping[str, Any]
    text: str
    failure: Optional[RuntimeFault] = None


@dataclass(frozen=True)
class VerifyOptions:
    """What ``verify`` compares with; ``None`` takes the package's own budgets and reference table."""

    max_drop: Optional[float] = None
    confidence: Optional[float] = None
    teacher: Optional[PathLike] = None
    threads: int = 0
    min_accuracy: Optional[float] = None

    def budgets(self, own: Budgets) -> Budgets:
        """The package's ``own`` budgets with those that were given in their place."""
        given = {"max_drop": self.max_drop, "confidence": self.confidence, "min_accuracy": self.min_accuracy}
        return replace(own, **{name: value for name, value in given.items() if value is not None})


def inspect(package: Package) -> Outcome:
    """What the package is, without opening a session."""
    meta = {key: value for key, value in package.meta.items() if key != "files"}
    target, budgets = package.meta["target"], package.budgets
    lines = [
        f"{package.name} {package.version} for {target.get('title') or package.target}",
        f"input    {package.task.inputs.describe(package.batch)}",
        *(f"{word:<8} {text}" for word, text in package.task.outputs.describe()),
        f"model    {len(package.model)} bytes{', run in exact Q/DQ arithmetic' if package.exact_qdq else ''}",
        f"plan     {_plan(package.meta)}",
        f"budgets  accuracy drop {100 * budgets.max_drop:g} points at {budgets.confidence:g} confidence, "
        + (f"accuracy from {100 * budgets.min_accuracy:g} %, p90 " if budgets.min_accuracy else "p90 ")
        + (f"{package.max_latency_p90_ms:g} ms" if package.max_latency_p90_ms else "unlimited"),
        f"digest   {package.digest}",
    ]
    return Outcome({**meta, "digest": package.digest, "model_bytes": len(package.model)}, _joined(lines))


def _plan(meta: Mapping[str, Any]) -> str:
    """The precision plan, and what compiling it at build time showed."""
    recipe, compiled = meta["recipe"], meta.get("engine", {})
    elsewhere = recipe.get("elsewhere", meta["precision"]["plan"])
    plan = str(meta["precision"]["plan"]) + (
        f", {elsewhere} elsewhere" if elsewhere != meta["precision"]["plan"] else ""
    )
    if compiled.get("status") in ("shipped", "checked"):
        plan += f"; engine {compiled['status']}, {compiled['builder']}: {compiled['layers']}"
    return plan


def engine(package: Package, build: bool, cache: Optional[str], say: Callable[[str], None]) -> Outcome:
    """The engine for this machine: what it is, what its layers compute in, and where it came from.

    Raises:
        BackendMissing, EngineError, PackageError: as ``engine.open.prepare_engine``.
    """
    from ..engine.open import prepare_engine
    from ..engine.sidecar import to_dict
    from ..engine.table import PrecisionTable

    prepared = prepare_engine(package, build, cache, say)
    sidecar = prepared.sidecar
    table = PrecisionTable.from_dict(sidecar.precision)
    lines = [
        f"{sidecar.key.flavour} {sidecar.key.version} for {sidecar.key.gpu or sidecar.key.compute_capability}, "
        f"{len(prepared.plan)} bytes, from the {'build' if prepared.origin == 'built' else prepared.origin}",
        f"layers   {table.describe()}",
    ]
    if sidecar.build_s is not None and sidecar.peak_memory_mib is not None:
        lines.append(f"built in {sidecar.build_s:.1f} s, at most {sidecar.peak_memory_mib:.0f} MiB")
    data = {**_head(package), "origin": prepared.origin, "sidecar": to_dict(sidecar)}
    return Outcome(data, _joined(lines))


def predict(predictor: Predictor, inputs: Sequence[PathLike], options: Optional[PredictOptions] = None) -> Outcome:
    """What the model says of every file, or of every text.

    Raises:
        InputError, BackendMissing: as ``Predictor.predict`` and ``Outputs.rows``.
    """
    task, options = predictor.package.task, options or PredictOptions()
    predictions: List[Mapping[str, Any]] = []
    lines: List[str] = []
    for start in range(0, len(inputs), BLOCK):
        named = [str(one) for one in inputs[start : start + BLOCK]]
        for i, row in enumerate(task.outputs.rows(predictor.predict(named), named, options)):
            predictions.append({task.inputs.noun[:-1]: named[i], **row.data})
            lines.append("\t".join(map(line, [named[i], *row.cells])))
    return Outcome({**_head(predictor.package), "predictions": predictions}, "\n".join(lines))


def selftest(predictor: Predictor) -> Outcome:
    """The golden samples, compared.

    Raises:
        SelfTestFailed: a sample differs.
    """
    result = self_test(predictor)
    shown = [predictor.package.task.outputs.agreement, *(output.describe() for output in result.outputs)]
    text = f"self-test passed: {result.images} golden inputs, {', '.join(shown)}"
    return Outcome({**_head(predictor.package), "verdict": "pass", **result.to_dict()}, text)


def bench(predictor: Predictor, options: BenchOptions) -> Outcome:
    """The latency here, and the verdict if there is a budget.

    Raises:
        InputError: an option out of range.
    """
    result = bench_package(predictor, options)
    seen = result.latency
    lines = [
        f"measured on {result.machine['label']} (package built for {predictor.package.target})",
        f"batch {result.batch}: p50 {seen.p50_ms:.4f} ms, p90 {seen.p90_ms:.4f} ms, p99 {seen.p99_ms:.4f} ms, "
        f"{result.images_per_second:.0f} {predictor.package.task.inputs.noun}/s",
    ]
    text = _joined(lines + [result.explain()] * bool(result.verdict))
    return Outcome({**_head(predictor.package), **result.to_dict()}, text, result.failure())


def verify(predictor: Predictor, data: PathLike, options: VerifyOptions) -> Outcome:
    """The accuracy gate on the labelled samples at ``data``.

    Raises:
        InputError, BackendMissing: as ``Task.load_labelled``, ``teacher_outputs`` and ``verify_package``.
    """
    package = predictor.package
    given, targets = package.task.load_labelled(data)
    feeds, teacher = predictor.read(given), None
    if options.teacher is not None:
        teacher = teacher_outputs(options.teacher, package.task, feeds, options.threads)
    result = verify_package(predictor, feeds, targets, options.budgets(package.budgets), teacher)
    text = _joined(result.lines(package.task.inputs.noun))
    return Outcome({**_head(package), **result.to_dict()}, text, result.failure())


def _joined(lines: Iterable[str]) -> str:
    """One text of lines, each of which stays one: the names in it are the package's."""
    return "\n".join(map(line, lines))


def _head(package: Package) -> Dict[str, Any]:
    own = {"name": package.name, "version": package.version, "target": package.target, "digest": package.digest}
    return {"schema": RESULT, "package": own}
