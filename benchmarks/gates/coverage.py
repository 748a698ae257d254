"""How often each bound of the gate covers the truth, by simulation: benchmarks/results/gates-coverage.json.

    python benchmarks/gates/coverage.py [PART ...]     # each part by itself, all by default: 5 CPU minutes

A cell draws test splits from a population whose true drop is known, and counts how often the upper bound at 95 % is
at or above it. ``verdicts`` draws pairs whose true drop is just over the budget: each pass is a false one.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.runtime.statistics.clustered import grouped_drops, grouped_share
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound
from dlx_deploy.runtime.statistics.groups import judge_groups
from dlx_deploy.runtime.statistics.means import Mean
from dlx_deploy.runtime.statistics.weighted import Units, weighted_drops
from dlx_deploy.runtime.tasks.class_metrics import METRICS
from dlx_deploy.runtime.tasks.class_scores import log_odds, top1
from dlx_deploy.runtime.tasks.mask_counts import mean_iou_drops
from dlx_deploy.runtime.tasks.mask_slices import MEAN_IOU
from dlx_deploy.runtime.tasks.slice_scores import score_slices

RESULTS = Path(__file__).parents[1] / "results" / "gates-coverage.json"
CONFIDENCE = 0.95
DRAWS = 100
"""Of a cell whose bound takes a bootstrap."""
RESAMPLES = 1_000
"""For a bound at 95 %; the gate draws 4,000, for bounds up to 99.9 %."""
Generator = np.random.Generator


def tango() -> Iterator[dict[str, Any]]:
    """Shares of samples that only one model has right; many draws, as a bound costs microseconds."""
    for n in (100, 600, 5_000):
        for flips, drop in ((0.02, 0.0), (0.02, 0.01), (0.08, 0.02)):
            rng = np.random.default_rng([1, n, round(1e4 * flips), round(1e4 * drop)])
            b, c = (flips + drop) / 2, (flips - drop) / 2
            counts = rng.multinomial(n, [b, c, 1 - b - c], 2_000)
            held = [drop_upper_bound(int(x), int(y), n, CONFIDENCE) >= drop for x, y, _ in counts]
            yield cell("Tango", {"n": n, "flips": flips, "drop": drop}, held)


def floor() -> Iterator[dict[str, Any]]:
    """Clopper and Pearson's lower bound of a share."""
    for n, share in ((100, 0.9), (600, 0.98), (5_000, 0.7)):
        right = np.random.default_rng([2, n]).binomial(n, share, 2_000)
        yield cell(
            "floor", {"n": n, "share": share}, [accuracy_lower_bound(int(x), n, CONFIDENCE) <= share for x in right]
        )


def means() -> Iterator[dict[str, Any]]:
    """Empirical Bernstein bounds of a mean difference of scores, which are safe for any distribution and so wide."""
    for n in (100, 600, 5_000):
        rng, drop = np.random.default_rng([3, n]), 0.01
        held = []
        for _ in range(1_000):
            numbers = np.where(rng.random(n) < 0.1, 0.1, 0.0) + rng.normal(0, 0.05, n)
            mean = Mean.of(numbers, 2.0)
            held.append(mean.value + mean.reach(CONFIDENCE) >= drop)
        yield cell("mean", {"n": n, "drop": drop}, held)


def classes(name: str) -> Callable[[], Iterator[dict[str, Any]]]:
    """A metric of classes, the rarest a tenth as frequent as the commonest; the truth from 400,000 samples."""

    def part() -> Iterator[dict[str, Any]]:
        for n, spread in ((150, 0.3), (600, 1.0)):
            rng, metric = np.random.default_rng([4, n, round(10 * spread)]), METRICS[name]
            truth = metric_drop(name, rng, 400_000, spread)
            held = []
            for _ in range(DRAWS):
                teacher, package = pair(rng, n, spread)
                held.append(metric.drops(teacher, package, RESAMPLES).bounds.at(CONFIDENCE)[1] >= truth)
            yield cell(metric.title, {"n": n, "spread": spread, "drop": round(truth, 5)}, held)

    return part


def masks() -> Iterator[dict[str, Any]]:
    """Mean IoU of images whose difficulty both models share."""
    for n in (40, 150):
        rng = np.random.default_rng([5, n])
        ours, theirs = images(rng, 40_000)
        whole = [float(np.mean(iou(one.sum(axis=0)))) for one in (ours, theirs)]
        truth, held = whole[0] - whole[1], []
        for _ in range(DRAWS):
            held.append(mean_iou_drops(*images(rng, n)).bounds.at(CONFIDENCE)[1] >= truth)
        yield cell("mIoU", {"n": n, "drop": round(truth, 5)}, held)


def clusters() -> Iterator[dict[str, Any]]:
    """Top-1 of samples that come in groups of ten which flip together: drawn by group, and as if each were its own."""
    size, drop, flips = 10, 0.01, 0.05
    for groups in (20, 60):
        rng = np.random.default_rng([6, groups])
        by_group: list[bool] = []
        alone: list[bool] = []
        for _ in range(200):
            kind = np.repeat(rng.choice(3, groups, p=[(flips + drop) / 2, (flips - drop) / 2, 1 - flips]), size)
            shuffled = np.where(rng.random(len(kind)) < 0.8, kind, 2)
            right = (shuffled != 1).astype(np.int64), (shuffled != 0).astype(np.int64)
            pair_of = tuple(top1(np.ones(len(kind) + 2, np.int64), np.append(one, [1, 0])) for one in right)
            keys = [bytes([k]) for k in shuffled]
            for seen, of in ((by_group, np.repeat(np.arange(groups), size)), (alone, np.arange(len(kind)))):
                units = Units.ordered(keys, of, np.array([1.0]))
                bound = weighted_drops((pair_of[0], pair_of[1]), units, RESAMPLES).bounds.at(CONFIDENCE)[1]
                seen.append(bound >= 0.8 * drop)
        for how, seen in (("top-1 by groups", by_group), ("top-1, groups ignored", alone)):
            yield cell(how, {"groups": groups, "size": size, "drop": 0.8 * drop}, seen)


def grouped() -> Iterator[dict[str, Any]]:
    """The gate's own bounds of right and wrong answers by groups, of uneven size (1 to some 60 samples): of the drop,
    beside Tango's that takes each sample for one of its own, and of a share of right ones."""
    drop, flips, share = 0.01, 0.05, 0.9
    for groups in (30, 150):
        rng = np.random.default_rng([8, groups])
        held: dict[str, list[bool]] = {"drop by groups": [], "Tango, groups ignored": [], "floor by groups": []}
        for _ in range(300):
            sizes = np.ceil(rng.lognormal(1.8, 0.8, groups)).astype(np.int64)
            of = np.repeat(np.arange(groups), sizes)
            kind = rng.choice(3, groups, p=[(flips + drop) / 2, (flips - drop) / 2, 1 - flips])[of]
            kind = np.where(rng.random(len(of)) < 0.8, kind, 2)
            teacher, package = kind != 1, kind != 0
            upper = grouped_drops(teacher, package, of).bounds.at(CONFIDENCE)[1]
            held["drop by groups"].append(upper >= 0.8 * drop)
            lost, gained = int((kind == 0).sum()), int((kind == 1).sum())
            alone = drop_upper_bound(lost, gained, len(of), CONFIDENCE)
            held["Tango, groups ignored"].append(alone >= 0.8 * drop)
            right = rng.random(len(of)) < rng.beta(9, 1, groups)[of]  # groups are easy or hard
            held["floor by groups"].append(grouped_share(right, of)[1].at(CONFIDENCE)[0] <= share)
        for how, seen in held.items():
            yield cell(how, {"groups": groups, "sizes": "uneven"}, seen)


def sliced() -> Iterator[dict[str, Any]]:
    """Each of four slices of a split by a metric that is no mean over samples: its bound, and how often one of the
    four, whose true drops are their budget, is called a miss (Holm keeps that at 5 %)."""
    for name, metric, draw, sizes in (
        ("macro-F1 of a slice", METRICS["macro_f1"], partial(pair, spread=0.6), (40, 150)),
        ("mIoU of a slice", MEAN_IOU, counted_images, (30, 100)),
    ):
        for n in sizes:
            rng = np.random.default_rng([9, n])
            ours, theirs = draw(rng, 100_000)
            truth = metric.value(ours) - metric.value(theirs)
            columns = {"camera": [str(i % 4) for i in range(4 * n)]}
            held: list[bool] = []
            missed: list[bool] = []
            for _ in range(DRAWS):
                scores, bounds = score_slices(metric, draw(rng, 4 * n), columns, lambda name: True)
                held += [of.at(CONFIDENCE)[1] >= truth for of in bounds]
                missed.append(judge_groups(scores, [truth] * 4, "slices", CONFIDENCE, bounds).verdict == "fail")
            of = {"slices": 4, "n": n, "drop": round(truth, 5)}
            yield {**cell(name, of, held), "splits_with_a_false_miss": float(np.mean(missed))}


def verdicts() -> Iterator[dict[str, Any]]:
    """200 pairs a metric whose true drop is 1 % over the budget, as far as 400,000 tell: what the gate passes."""
    for name in ("top1", "macro_f1", "balanced_accuracy", "auroc"):
        rng, n, spread = np.random.default_rng([7, len(name)]), 300, 0.6
        truth = metric_drop(name, rng, 400_000, spread)
        budget, passed = truth / 1.01, 0
        for _ in range(200):
            teacher, package = pair(rng, n, spread)
            passed += bound_of(name, teacher, package) <= budget
        yield {
            "statistic": name,
            "pairs": 200,
            "budget": round(budget, 5),
            "false_passes": passed / 200,
            "error": error(passed / 200, 200),
        }


def bound_of(name: str, teacher: dict[str, Any], package: dict[str, Any]) -> float:
    if name != "top1":
        return METRICS[name].drops(teacher, package, RESAMPLES).bounds.at(CONFIDENCE)[1]
    first, second = (one["answer"] == one["label"] for one in (teacher, package))
    return drop_upper_bound(int((first & ~second).sum()), int((second & ~first).sum()), len(first), CONFIDENCE)


def metric_drop(name: str, rng: Generator, n: int, spread: float) -> float:
    teacher, package = pair(rng, n, spread)
    if name == "top1":
        return float(np.mean(teacher["answer"] == teacher["label"]) - np.mean(package["answer"] == package["label"]))
    values = []
    for one in (teacher, package):
        metric = METRICS[name]
        given = log_odds(one["logits"]) if metric.by_scores else one["answer"]
        values.append(float(metric.score(one["label"], given)(np.ones((1, n)))[0]))
    return values[0] - values[1]


def pair(rng: Generator, n: int, spread: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics of a teacher and a package on ``n`` samples of four classes; logits differ by noise of ``spread``."""
    shares = np.array([10.0, 5.0, 3.0, 1.0])
    labels = rng.choice(4, n, p=shares / shares.sum())
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), labels] += 2.0
    other = logits + rng.normal(0, spread, logits.shape)
    each = [one.astype(np.float32) for one in (logits, other)]
    first, second = ({"label": labels, "answer": one.argmax(axis=1), "logits": one} for one in each)
    return first, second


def images(rng: Generator, n: int) -> tuple[Any, Any]:
    """Counts int64[n, 3, 3] of right, surplus and missing pixels for both models."""
    hard, sizes = rng.beta(2, 12, (n, 1)), rng.multinomial(400, [0.6, 0.3, 0.1], n)
    models = []
    for more in (1.0, 1.15):
        missed = rng.binomial(sizes, np.clip(hard * more, 0, 1))
        models.append(np.stack([sizes - missed, rng.permuted(missed, axis=1), missed], axis=2))
    return models[0], models[1]


def counted_images(rng: Generator, n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics of both models on ``images``."""
    ours, theirs = images(rng, n)
    return {"counts": ours}, {"counts": theirs}


def iou(sums: Any) -> Any:
    return sums[:, 0] / sums.sum(axis=1)


def cell(statistic: str, of: dict[str, Any], held: list[bool]) -> dict[str, Any]:
    share = float(np.mean(held))
    return {
        "statistic": statistic,
        **of,
        "draws": len(held),
        "coverage": round(share, 4),
        "error": error(share, len(held)),
    }


def error(share: float, n: int) -> float:
    """Of a share that was simulated: its standard error."""
    return round(math.sqrt(max(share * (1 - share), 1 / n) / n), 4)


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "tango": tango,
    "floor": floor,
    "means": means,
    "macro_f1": classes("macro_f1"),
    "balanced_accuracy": classes("balanced_accuracy"),
    "auroc": classes("auroc"),
    "masks": masks,
    "clusters": clusters,
    "grouped": grouped,
    "slices": sliced,
    "verdicts": verdicts,
}


def main(names: list[str]) -> None:
    """Each part's cells replace those of an earlier run."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": {}}
    for name in names or list(PARTS):
        start = time.process_time()
        cells = list(PARTS[name]())
        known["parts"][name] = {"cells": cells, "cpu_seconds": round(time.process_time() - start, 1)}
        known["machine"] = {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        known |= {"confidence": CONFIDENCE, "resamples": RESAMPLES}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        for one in cells:
            print(name, one, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
