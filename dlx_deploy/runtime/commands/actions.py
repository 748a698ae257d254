"""The commands as functions: each gives back its data, its text and its failure, and prints nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from ..errors import RuntimeFault
from ..package.contents import Package
from ..predictor import PathLike, Predictor
from ..words import line
from .asked import listed
from .bench import BenchOptions, bench_package
from .selftest import self_test
from .verify import load_labelled, teacher_predictions, verify_package

__all__ = ["Outcome", "VerifyOptions", "bench", "engine", "info", "listed", "predict", "selftest", "verify"]

BLOCK = 64  # images decoded and run at a time


@dataclass(frozen=True)
class Outcome:
    """What a command found: ``data`` for ``--json``, ``text`` for people, ``failure`` if a gate did not pass."""

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


def info(package: Package) -> Outcome:
    """What the package is, without opening a session."""
    meta = {key: value for key, value in package.meta.items() if key != "files"}
    target = package.meta["target"]
    lines = [
        f"{package.name} {package.version} for {target.get('title') or package.target}",
        f"input    {package.input.describe(package.batch)}",
        f"classes  {len(package.labels)}: {', '.join(package.labels[:10])}{', …' if len(package.labels) > 10 else ''}",
        f"model    {len(package.model)} bytes{', run in exact Q/DQ arithmetic' if package.exact_qdq else ''}",
        f"plan     {_plan(package.meta)}",
        f"budgets  accuracy drop {100 * package.max_drop:g} points at {package.confidence:g} confidence, "
        + (f"accuracy from {100 * package.min_accuracy:g} %, p90 " if package.min_accuracy else "p90 ")
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


def predict(predictor: Predictor, inputs: Sequence[PathLike], top: int = 1) -> Outcome:
    """The ``top`` classes of every image file, or of every text.

    Raises:
        InputError, BackendMissing: as ``Predictor.predict``.
    """
    names = predictor.package.labels
    found: List[Dict[str, Any]] = []
    key = predictor.package.input.noun[:-1]
    for start in range(0, len(inputs), BLOCK):
        block = [str(one) for one in inputs[start : start + BLOCK]]
        for i, best in enumerate(predictor.predict(block).top(top)):
            ranked = [{"class": names.index(label), "label": label, "probability": p} for label, p in best]
            found.append({key: block[i], "top": ranked})
    cells = [[row[key], *(f"{best['label']} {best['probability']:.4f}" for best in row["top"])] for row in found]
    lines = ["\t".join(map(line, row)) for row in cells]
    return Outcome({**_head(predictor.package), "predictions": found}, "\n".join(lines))


def selftest(predictor: Predictor) -> Outcome:
    """The golden images, compared.

    Raises:
        SelfTestFailed: an image differs.
    """
    result = self_test(predictor)
    text = (
        f"self-test passed: {result.images} golden inputs, every top-1 the same, logits within "
        f"{result.max_abs_diff:.3g} (allowed: {result.atol:g} + {result.rtol:g} * |golden|)"
    )
    return Outcome({**_head(predictor.package), "verdict": "pass", **asdict(result)}, text)


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
        f"{result.images_per_second:.0f} {predictor.package.input.noun}/s",
    ]
    text = _joined(lines + [result.explain()] * bool(result.verdict))
    return Outcome({**_head(predictor.package), **result.to_dict()}, text, result.failure())


def verify(predictor: Predictor, data: PathLike, options: VerifyOptions) -> Outcome:
    """The accuracy gate on the labelled images or texts at ``data``.

    Raises:
        InputError, BackendMissing: as ``load_labelled``, ``teacher_predictions`` and ``verify_package``.
    """
    images, labels = load_labelled(data, predictor.package)
    images = predictor.decode(images)
    teacher = (
        None
        if options.teacher is None
        else teacher_predictions(options.teacher, images, options.threads, len(predictor.package.labels))
    )
    result = verify_package(predictor, images, labels, options.max_drop, options.confidence, teacher)
    if options.min_accuracy is not None:
        result = result.held_to(options.min_accuracy)
    lines = [
        f"teacher {100 * result.teacher_accuracy:.2f} %, package {100 * result.accuracy:.2f} % of {len(images)} "
        f"{predictor.package.input.noun} "
        f"({result.b} only the teacher has right, {result.c} only the package)",
        result.verdict.explain(),
    ]
    if result.floor:
        lines.append(result.floor.explain())
    if result.relabelled:
        lines.append(
            f"{result.relabelled} {predictor.package.input.noun} have another label than when the package was built"
        )
    return Outcome({**_head(predictor.package), **result.to_dict()}, _joined(lines), result.failure())


def _joined(lines: Iterable[str]) -> str:
    """One text of lines, each of which stays one: the names in it are the package's."""
    return "\n".join(map(line, lines))


def _head(package: Package) -> Dict[str, Any]:
    own = {"name": package.name, "version": package.version, "target": package.target, "digest": package.digest}
    return {"schema": 1, "package": own}
