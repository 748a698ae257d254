"""Finished verifications, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.stages.support.results import Latencies, Timing
from dlx_deploy.tasks.verification import Accuracy, Row

__all__ = ["outputs"]


def outputs(folder: Path, b: int = 2, c: int = 1, n: int = 1000, **timing: Any) -> dict[str, Path]:
    """A verification of two models in which ``quantized`` is shipped."""
    top1 = timing.pop("top1", 0.98)
    largest = timing.pop("largest_class", 0)

    def row(model: str, b: int, c: int) -> Row:
        score = top1 - (b - c) / n
        return Row(model=model, score=score, evidence={"b": b, "c": c}, size_bytes=3000, macs=10, parameters=20)

    rows = (row("teacher", 0, 0), row("quantized", b, c))
    facts = {"largest_class": largest / n} if largest else {}
    accuracy = Accuracy(
        metric="top1", title="top-1", judge="exact-qdq", n=n, shipped="quantized", rows=rows, facts=facts
    )
    kind = timing.pop("kind", "measured")
    rows = tuple(
        Timing(model=m, **{"p50_ms": 1.0, "p90_ms": 1.2, "p90_upper_ms": 1.3, **timing})
        for m in ("teacher", "quantized")
    )
    latencies = Latencies(schema=1, kind=kind, where="a board", rows=rows)
    for name, value in (("accuracy.json", accuracy), ("latency.json", latencies)):
        (folder / name).write_bytes(canonical_json(value))
    return {name: folder / name for name in ("accuracy.json", "latency.json")}
