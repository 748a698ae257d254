"""The bounds of the gate cover the truth as often as they say: the figures that are kept, and the worst cell again."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.tasks.class_metrics import METRICS

ROOT = Path(__file__).parents[2] / "benchmarks"
KEPT = json.loads((ROOT / "results" / "gates-coverage.json").read_text())["parts"]


@pytest.fixture(scope="module")
def coverage() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "gates" / "coverage.py")))  # no module "coverage": there is one


def test_figures_that_are_kept_cover_what_they_say() -> None:
    cells = [cell for name, part in KEPT.items() if name != "verdicts" for cell in part["cells"]]
    ignoring = [cell for cell in cells if "ignored" in cell["statistic"]]
    short = [c for c in cells if c not in ignoring and c["coverage"] + 2 * c["error"] < 0.95]
    assert not short
    assert len(cells) > 15
    assert all(cell["coverage"] + 2 * cell["error"] < 0.95 for cell in ignoring), "a wrong bound is seen"
    assert all(c["splits_with_a_false_miss"] <= 0.05 for c in KEPT["slices"]["cells"])
    assert all(c["false_passes"] - 2 * c["error"] <= 0.05 for c in KEPT["verdicts"]["cells"])


def test_tango_covers_at_the_worst_cell() -> None:
    """5,000 samples of which 2 % flip as often one way as the other: 0.942 of 2,000 draws (error 0.005)."""
    counts = np.random.default_rng(1).multinomial(5_000, [0.01, 0.01, 0.98], 1_000)
    held = [drop_upper_bound(int(b), int(c), 5_000, 0.95) >= 0 for b, c, _ in counts]
    assert np.mean(held) > 0.95 - 3 * 0.0069


def test_macro_f1_covers_with_few_samples_of_a_class(coverage: Any) -> None:
    """8 of 150 samples are of the rarest class: more are covered than would be with 5 points less (0.90)."""
    rng = np.random.default_rng(11)
    truth = coverage.metric_drop("macro_f1", rng, 200_000, 0.3)
    held = []
    for _ in range(60):
        held.append(METRICS["macro_f1"].drops(*coverage.pair(rng, 150, 0.3), 400).bounds.at(0.95)[1] >= truth)
    assert np.mean(held) >= 0.9
