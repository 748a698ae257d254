"""The gates of a finished verification, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.report.results import draw_results, read_results
from dlx_deploy.stages.verify import Accuracy, Latencies, Row, Timing, judge


def outputs(folder: Path, b: int = 2, c: int = 1, n: int = 1000, **timing: Any) -> dict[str, Path]:
    """A verification of two models in which ``quantized`` is shipped."""

    def row(model: str, b: int, c: int) -> Row:
        return Row(model=model, top1=0.98 - (b - c) / n, b=b, c=c, size_bytes=3000, macs=10, parameters=20)

    accuracy = Accuracy(
        schema=1, judge="exact-qdq", n=n, shipped="quantized", rows=(row("teacher", 0, 0), row("quantized", b, c))
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


@pytest.mark.parametrize(
    ("b", "c", "verdict", "text"),
    [
        (2, 1, "pass", "at most"),
        (90, 10, "fail", "to improve: train and distill longer, prune less, or raise gate.max_drop"),
        (25, 10, "undecided", "samples would decide"),
    ],
)
def test_accuracy(tmp_path: Path, b: int, c: int, verdict: str, text: str) -> None:
    (result,) = judge(Gate(max_drop=0.02), outputs(tmp_path, b, c), {})
    assert (result.gate, result.verdict) == ("accuracy", verdict)
    assert text in result.text
    assert result.value == pytest.approx((b - c) / 1000)


@pytest.mark.parametrize(
    ("limit_ms", "timing", "verdict"),
    [
        (2.0, {}, "pass"),
        (1.25, {}, "undecided"),  # p90 is under the budget, its bound is not
        (1.0, {}, "fail"),
        (9.0, {"kind": "estimate (roofline, not measured)"}, "pending"),
        (0.001, {"kind": "estimate (roofline, not measured)"}, "pending"),  # an estimate never fails a gate either
        (9.0, {"p90_upper_ms": None}, "pending"),
    ],
)
def test_latency(tmp_path: Path, limit_ms: float, timing: dict[str, Any], verdict: str) -> None:
    results = judge(Gate(max_latency_p90_ms=limit_ms), outputs(tmp_path, **timing), {})
    assert [(r.gate, r.verdict) for r in results] == [("accuracy", "pass"), ("latency", verdict)]
    if verdict == "pending":
        assert "dlx-deploy bench PACKAGE --max-p90-ms" in results[1].text


def test_no_latency_budget_no_latency_gate(tmp_path: Path) -> None:
    assert [r.gate for r in judge(Gate(), outputs(tmp_path), {})] == ["accuracy"]


def test_the_table(tmp_path: Path) -> None:
    measured = draw_results(read_results("board", outputs(tmp_path, 5, 2), Gate()))
    assert "→ quantized  97.70 %  0.30" in measured
    assert "1.20 ms" in measured
    assert "pending" not in measured
    kind = "estimate (roofline, not measured)"
    estimated = draw_results(
        read_results("board", outputs(tmp_path, 5, 2, kind=kind, p90_ms=None, low_ms=0.5, high_ms=1.5), Gate())
    )
    assert "~1.00 ms" in estimated
    assert f"Latency at batch 1: {kind}, a board." in estimated
    assert "pending until the board measures it" in estimated
