"""What ``Predictor.predict`` adds to ``InferenceSession.run`` at batch 1, on one session, interleaved.

    python benchmarks/runtime_overhead.py digits-0.1.0-cpu-x86_64.dlx --json overhead.json

``raw`` is ``session.run(["logits"], {"images": x})``, the faster of the two usual spellings; ``raw_again`` is the same
call a second time, so its ratio shows the noise of the method. Ratios are of medians, with a bootstrap interval over
rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.predictor import Predictor, load
from dlx_deploy.runtime.timing.latency import summarise
from dlx_deploy.runtime.timing.sampling import Sampling, sample

__all__ = ["compare", "main"]

RESAMPLES = 1_000
LIMIT = 1.05  # predict may take 5 % longer than the raw call


def compare(predictor: Predictor, rounds: int, seed: int = 0) -> dict[str, Any]:
    """The p50 of each way in microseconds, and each way's ratio to ``raw`` with its 95 % interval."""
    image = np.ascontiguousarray(predictor.package.golden_inputs["images"][:1])
    session = predictor.backend.session
    ways = {
        "raw": lambda: session.run(["logits"], {"images": image}),
        "raw_again": lambda: session.run(["logits"], {"images": image}),
        "raw_all_outputs": lambda: session.run(None, {"images": image}),
        "predict": lambda: predictor.predict(image),
    }
    timings = {
        name: np.array(ns) for name, ns in sample(ways, Sampling(rounds, rounds // 10, pace=0.0)).timings.items()
    }
    picks = np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds), dtype=np.int32)
    base = np.median(timings["raw"][picks], axis=1)
    result: dict[str, Any] = {"p50_us": {}, "p90_us": {}, "ratio": {}}
    for name, ns in timings.items():
        latency = summarise(ns.tolist())
        result["p50_us"][name], result["p90_us"][name] = 1000 * latency.p50_ms, 1000 * latency.p90_ms
        low, high = np.percentile(np.median(ns[picks], axis=1) / base, [2.5, 97.5])
        value = float(np.median(ns) / np.median(timings["raw"]))
        result["ratio"][name] = {"value": value, "low": float(low), "high": float(high)}
    return result


def main() -> int:
    """Prints the comparison as JSON; gives 0 if the whole interval of ``predict`` is within the limit, else 3."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a .dlx file")
    parser.add_argument("--rounds", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    predictor = load(arguments.package, arguments.threads)
    found = compare(predictor, arguments.rounds)
    met = found["ratio"]["predict"]["high"] <= LIMIT
    settings = {"rounds": arguments.rounds, "threads": arguments.threads, "limit": LIMIT, "met": met}
    report = {"schema": 1, "package": arguments.package.name, "machine": machine_info(), **settings, **found}
    text = json.dumps(report, sort_keys=True, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
