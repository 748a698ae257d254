"""What it takes to ask a package of images about what a camera or a disk gives: the ways in, and micro-batches.

    python benchmarks/frames.py mobilenet-0.1.0-cpu-x86_64.dlx --json frames.json

``run`` is ``InferenceSession.run`` on pixels that are ready, the floor of all others; each round has them in another
order, since what ran before has left its data in the caches. ``resize`` is ``fit_image`` alone. The last figures are of
``predictor.stream`` over such frames. All are CPU time of this process: with one thread that is the time on an idle
machine, and other work hardly moves it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version
from reports import publish

from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.predictor import Predictor, load
from dlx_deploy.runtime.tasks.images import fit_image

__all__ = ["by_batch", "main", "measure"]

HEIGHT, WIDTH = 720, 1280  # of a camera's frame
BATCHES = (1, 4, 16)
WARMUP = 10  # rounds


def ways(predictor: Predictor, jpeg: Path, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Each way to have one answer, by name."""
    rng = np.random.default_rng(seed)
    framing = predictor.package.task.inputs.framing  # type: ignore[attr-defined]  # of a package of images
    exact = rng.integers(0, 256, (1, *framing.shape), np.uint8)
    coarse = Image.fromarray(rng.integers(0, 256, (45, 80, 3), np.uint8))
    frame = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    picture = Image.fromarray(frame)
    picture.save(jpeg, quality=90)
    session = predictor.backend.session
    return {
        "run": lambda: session.run(["logits"], {"images": exact}),
        "exact array": lambda: predictor.predict(exact),
        "exact array, one image": lambda: predictor.predict(exact[0]),
        "1280x720 BGR array": lambda: predictor.predict(frame, bgr=True),
        "1280x720 RGB array": lambda: predictor.predict(frame),
        "1280x720 Pillow image": lambda: predictor.predict(picture),
        "1280x720 JPEG file": lambda: predictor.predict(jpeg),
        "resize": lambda: fit_image(frame, framing),
    }


def measure(predictor: Predictor, rounds: int, jpeg: Path) -> dict[str, dict[str, float]]:
    """CPU milliseconds of each way: the median and the 90th percentile."""
    calls = ways(predictor, jpeg)
    timings: dict[str, list[float]] = {name: [] for name in calls}
    order, names = np.random.default_rng(1), list(calls)
    for round_ in range(rounds + WARMUP):
        for name in (names[i] for i in order.permutation(len(names))):
            began = time.process_time_ns()
            calls[name]()
            if round_ >= WARMUP:
                timings[name].append((time.process_time_ns() - began) / 1e6)
    found = {name: np.percentile(values, [50, 90]) for name, values in timings.items()}
    return {name: {"p50_ms": round(p50, 3), "p90_ms": round(p90, 3)} for name, (p50, p90) in found.items()}


def by_batch(predictor: Predictor, frames: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """CPU milliseconds per frame of ``stream`` by batch size, of exact arrays and of camera frames; the least of five.

    The sizes take turns, so that a slow moment of the machine meets all of them.
    """
    rng = np.random.default_rng(seed)
    shape = predictor.package.task.inputs.framing.shape  # type: ignore[attr-defined]
    given = {
        "exact array": rng.integers(0, 256, shape, np.uint8),
        "1280x720 BGR array": rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
    }
    least: dict[str, dict[str, float]] = {name: {} for name in given}
    for name, batch in [(name, batch) for name in given for batch in BATCHES] * 5:
        began = time.process_time_ns()
        source = itertools.repeat(given[name], frames)
        answered = sum(1 for _ in predictor.stream(source, batch=batch, bgr=name != "exact array"))
        spent = (time.process_time_ns() - began) / 1e6 / answered
        least[name][f"batch {batch}"] = round(min(spent, least[name].get(f"batch {batch}", spent)), 3)
    return least


def main() -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a .dlx file of a task of images")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    predictor = load(arguments.package, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        latency = measure(predictor, arguments.rounds, Path(folder) / "frame.jpg")
    report = {
        "package": arguments.package.name,
        "input": predictor.package.task.inputs.describe(predictor.package.batch),
        "backend": predictor.backend.name,
        "machine": {**machine_info(), "pillow": pillow_version},
        "rounds": arguments.rounds,
        "frames": arguments.frames,
        "threads": arguments.threads,
        "cpu_time": latency,
        "stream_ms_per_frame": by_batch(predictor, arguments.frames),
    }
    publish(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
