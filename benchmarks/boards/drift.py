"""How often a drift watch alarms at undrifted samples, after how many it finds drifts, and what a sample costs.

    python benchmarks/boards/drift.py digits.dlx STORE/store/KEY/data --windows 400

``DATA`` is a data folder as a build keeps it (``dataset.json``). The samples are those of its validation split, which
are not those that the package's statistics are of; a window is drawn from them with replacement.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.runtime import load
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.features import features_of
from dlx_deploy.runtime.watching.drift import DriftOptions, DriftWatch

Arrays = dict[str, Any]
Change = Callable[[Any, Any], Any]


def brighter(images: Any, rng: Any) -> Any:
    return np.clip(images * 1.2, 0, 255).astype(np.uint8)


def darker(images: Any, rng: Any) -> Any:
    return (images * 0.8).astype(np.uint8)


def swapped(images: Any, rng: Any) -> Any:
    return np.ascontiguousarray(images[..., ::-1])


def noisy(images: Any, rng: Any) -> Any:
    return np.clip(images + rng.normal(0, 10, images.shape), 0, 255).astype(np.uint8)


def blurred(images: Any, rng: Any) -> Any:
    wide = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = images.shape[1:3]
    return (sum(wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9).astype(np.uint8)


def inverted(images: Any, rng: Any) -> Any:
    return 255 - images


CHANGES: dict[str, Change] = {
    "brightness + 20 %": brighter,
    "brightness - 20 %": darker,
    "noise, sigma 10 of 255": noisy,
    "blurred, 3 x 3": blurred,
    "inverted": inverted,
    "red and blue swapped": swapped,
}


def matrix(predictor: Predictor, watch: DriftWatch, feeds: Arrays) -> Any:
    features = features_of(predictor.package.task, feeds, predictor.run(feeds))
    return np.stack([features[one.name] for one in watch.reference.features], axis=1).astype(np.float32)


def rate(watch: DriftWatch, rows: Any, window: int, windows: int, rng: Any) -> tuple[float, str]:
    """The share of windows that drifted, and the feature that was furthest most often."""
    firsts: list[str] = []
    for _ in range(windows):
        judged = watch.judge(rows[rng.integers(0, len(rows), window)], window)
        far = [one for one in judged if one.drifted]
        if far:
            firsts.append(max(far, key=lambda one: one.distance / one.threshold).name)
    most = max(set(firsts), key=firsts.count) if firsts else "-"
    return len(firsts) / windows, most


def cost_us(predictor: Predictor, watch: DriftWatch, feeds: Arrays, batch: int, rounds: int) -> tuple[float, float]:
    """Microseconds of CPU a sample: of the model and of the watch, median of ``rounds``."""
    some = {name: values[:batch] for name, values in feeds.items()}
    outputs = predictor.run(some)
    models, seen = [], []
    for _ in range(rounds):
        began = time.process_time()
        predictor.run(some)
        middle = time.process_time()
        watch.see(some, outputs)
        models.append(middle - began)
        seen.append(time.process_time() - middle)
    return float(np.median(models)) / batch * 1e6, float(np.median(seen)) / batch * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("data", type=Path)
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--split", default="validation")
    asked = parser.parse_args()
    predictor, rng = load(asked.package, threads=1), np.random.default_rng(1)
    data = open_data(asked.data)
    feeds = dict(data.samples(asked.split).feed())
    watch = DriftWatch(predictor.package, DriftOptions())
    images = feeds.get("images")
    pools = {"undrifted": matrix(predictor, watch, feeds)}
    answers = pools["undrifted"]
    named = [one.name for one in watch.reference.features]
    if "output_class" in named:
        first = answers[:, named.index("output_class")]
        pools["one class only"] = answers[first == 0]
        pools["one class twice as often"] = np.concatenate([answers, answers[first == 0]])
    if images is not None:
        for name, change in CHANGES.items():
            if name != "red and blue swapped" or images.shape[-1] == 3:
                pools[name] = matrix(predictor, watch, {"images": change(images, rng)})
    print(f"{watch.reference.samples} samples at build, {len(answers)} of {asked.split}, {len(named)} features")
    for name, rows in pools.items():
        for window in watch.reference.windows:
            share, first_name = rate(watch, rows, window, asked.windows, rng)
            print(f"{name:26} window {window:5}: {100 * share:6.2f} % of {asked.windows} drifted   {first_name}")
    for batch in (1, 8, 32):
        model, own = cost_us(predictor, watch, feeds, batch, 300)
        print(f"batch {batch:3}: model {model:8.1f} us a sample, drift {own:6.1f} us ({100 * own / model:.1f} %)")


if __name__ == "__main__":
    main()
