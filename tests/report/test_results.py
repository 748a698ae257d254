"""The table of a build's results."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.config import Config
from dlx_deploy.report.results import read_results

from ..stages.support.verifications import outputs


def test_the_table_says_that_nothing_is_shipped(tmp_path: Path) -> None:
    results = read_results("board", outputs(tmp_path), Config(), packaged=False)
    assert [(row.model, row.candidate, row.shipped) for row in results.rows] == [
        ("teacher", False, False),
        ("quantized", True, False),
    ]
    assert (results.metric, results.metric_title, results.rows[0].score) == ("top1", "top-1", 0.98)
    assert "→ was chosen, and is not shipped. Top-1 on 1000 test samples, " in results.text
    assert "→ was chosen, and is not shipped." in results.text
    assert "→ is shipped." in read_results("board", outputs(tmp_path), Config()).text


def test_the_table(tmp_path: Path) -> None:
    measured = read_results("board", outputs(tmp_path, 5, 2), Config()).text
    assert "→ quantized  97.70 %  0.30" in measured
    assert "1.20 ms" in measured
    assert "pending" not in measured
    kind = "estimate (roofline, not measured)"
    files = outputs(tmp_path, 5, 2, kind=kind, p90_ms=None, low_ms=0.5, high_ms=1.5)
    estimated = read_results("board", files, Config()).text
    assert "~1.00 ms" in estimated
    assert f"Latency at batch 1: {kind}, a board." in estimated
    assert "pending until the board measures it" in estimated
