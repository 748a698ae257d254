"""How often a drift watch alarms at undrifted samples, after how many it finds drifts, and what a sample costs.

    python benchmarks/boards/drift.py resnet20.dlx cifar10/test --json drift.json

``DATA`` is labelled data as ``verify`` takes it. Some samples of it, drawn at random, are the reference, made as a
build makes it; windows are drawn with replacement from all others. So that the rate of false alarms is that of many
references, and not of one, this is done anew several times.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.predictor import Predictor, load
from dlx_deploy.runtime.tasks.arrays import count_of, joined, rows_of
from dlx_deploy.runtime.tasks.features import features_of
from dlx_deploy.runtime.watching.drift import DriftOptions, DriftWatch
from dlx_deploy.stages.support.drift import WINDOWS, drift_file

__all__ = ["CHANGES", "main"]

Features = dict[str, Any]
BLOCK = 100


def scaled(factor: float) -> Callable[[Any], Any]:
    return lambda images: np.clip(images * factor, 0, 255).astype(np.uint8)


def noisy(sigma: float) -> Callable[[Any], Any]:
    rng = np.random.default_rng(2)
    return lambda images: np.clip(images + rng.normal(0, sigma, images.shape), 0, 255).astype(np.uint8)


def swapped(images: Any) -> Any:
    return np.ascontiguousarray(images[..., ::-1])


def blurred(images: Any) -> Any:
    wide = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = images.shape[1:3]
    blocks = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return np.mean(blocks, axis=0).astype(np.uint8)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "brightness + 20 %": scaled(1.2),
    "brightness - 20 %": scaled(0.8),
    "noise, sigma 10 of 255": noisy(10),
    "noise, sigma 25 of 255": noisy(25),
    "blurred, 3 x 3": blurred,
    "red and blue swapped": swapped,
}


def features(predictor: Predictor, feeds: Any) -> Features:
    """Of every sample, some at a time."""
    task = predictor.package.task
    blocks = [rows_of(feeds, slice(i, i + BLOCK)) for i in range(0, count_of(feeds), BLOCK)]
    return dict(joined([features_of(task, block, predictor.run(block)) for block in blocks]))


def pools_of(predictor: Predictor, feeds: Any) -> dict[str, Features]:
    """The features of the samples as they are, and after each change."""
    plain = features(predictor, feeds)
    pools = {"undrifted": plain}
    if "output_class" in plain:
        first = plain["output_class"] == 0
        pools["one class only"] = rows_of(plain, first)
        pools["one class three times as often"] = joined([plain, *[rows_of(plain, first)] * 2])
    images = feeds.get("images")
    for name, change in CHANGES.items() if images is not None else ():
        if change is not swapped or images.shape[-1] == 3:
            pools[name] = features(predictor, {"images": change(images)})
    return pools


def found(watch: DriftWatch, pool: Features, window: int, windows: int, rng: Any) -> list[str]:
    """Of each window that drifted the feature that was furthest."""
    rows = np.stack([pool[one.name] for one in watch.reference.features], axis=1).astype(np.float32)
    names = []
    for _ in range(windows):
        drifted = [one for one in watch.judge(rows[rng.integers(0, len(rows), window)], window) if one.drifted]
        if drifted:
            names.append(max(drifted, key=lambda one: one.distance / one.threshold).name)
    return names


def rates(predictor: Predictor, feeds: Any, asked: argparse.Namespace) -> tuple[dict[str, Any], DriftWatch]:
    """By change and window the share of windows that drifted, over all references."""
    pools, rng = pools_of(predictor, feeds), np.random.default_rng(1)
    count = count_of(pools["undrifted"])
    counted: dict[str, dict[int, list[str]]] = {name: {n: [] for n in WINDOWS} for name in pools}
    for _ in range(asked.references):
        known = rng.permutation(count)[: asked.reference]
        file = drift_file(rows_of(pools["undrifted"], known))
        watch = DriftWatch(dataclasses.replace(predictor.package, drift=file), DriftOptions())
        others = np.setdiff1d(np.arange(count), known)
        for name, pool in pools.items():
            field = rows_of(pool, others) if count_of(pool) == count else pool
            for n in WINDOWS:
                counted[name][n] += found(watch, field, n, asked.windows, rng)
    total = asked.references * asked.windows
    table = {
        name: {
            n: {"share": len(of) / total, "mostly": max(set(of), key=of.count) if of else ""} for n, of in by.items()
        }
        for name, by in counted.items()
    }
    return table, watch


def cost_us(predictor: Predictor, watch: DriftWatch, feeds: Any, batch: int, rounds: int = 300) -> dict[str, float]:
    """Microseconds of CPU a sample: of the model and of the watch, medians."""
    some = rows_of(feeds, slice(batch))
    outputs = predictor.run(some)
    models, seen = [], []
    for _ in range(rounds):
        began = time.process_time_ns()
        predictor.run(some)
        middle = time.process_time_ns()
        watch.see(some, outputs)
        models.append(middle - began)
        seen.append(time.process_time_ns() - middle)
    model, own = (float(np.median(ns)) / batch / 1e3 for ns in (models, seen))
    return {"batch": batch, "model_us": round(model, 1), "drift_us": round(own, 1), "share": round(own / model, 4)}


def main() -> int:
    """Prints the rates and the costs as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a .dlx file")
    parser.add_argument("data", type=Path)
    parser.add_argument("--reference", type=int, default=512, help="samples (default: as a build takes)")
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--windows", type=int, default=100, help="of each size, for each reference")
    parser.add_argument("--limit", type=int, help="samples of the data")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    asked = parser.parse_args()
    predictor = load(asked.package, threads=1)
    given, _ = predictor.package.task.load_labelled(asked.data)
    feeds = predictor.read(given)
    rows = np.random.default_rng(0).permutation(count_of(feeds))[: asked.limit]
    feeds = rows_of(feeds, rows)
    table, watch = rates(predictor, feeds, asked)
    settings = {name: getattr(asked, name) for name in ("reference", "references", "windows")}
    costs = [cost_us(predictor, watch, feeds, batch) for batch in (1, 8, 32)]
    report = {
        "schema": 1,
        "package": asked.package.name,
        "machine": machine_info(),
        **settings,
        "samples": len(rows),
        "features": [one.name for one in watch.reference.features],
        "drifted": table,
        "cost": costs,
    }
    text = json.dumps(report, indent=1) + "\n"
    sys.stdout.write(text)
    if asked.json:
        asked.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
