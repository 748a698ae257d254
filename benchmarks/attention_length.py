"""Softmax against linear attention over the length of the text: the time curve of ``efficient_transformer``.

    python benchmarks/attention_length.py --json attention-length.json --svg attention-length.svg

One sequence at a time, both kinds in turn. ``exponent`` is the slope of log(time) over log(length) from 1,024 tokens
on: 1 is linear.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reports import finish

from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.runtime.timing.sampling import Sampling, measure

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
KINDS = ("softmax", "linear")
ARGUMENTS = {"depth": 1, "width": 64, "heads": 4}


def curve(rounds: int) -> dict[str, list[float]]:
    models = {}
    for kind in KINDS:
        seed_all(0)
        spec = TokenInput(100, max(LENGTHS))
        models[kind] = build_model("efficient_transformer", {**ARGUMENTS, "attention": kind}, 2, spec).eval()
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for length in LENGTHS:
        tokens = torch.randint(1, 100, (1, length))
        with torch.inference_mode():
            calls = {kind: functools.partial(model, tokens) for kind, model in models.items()}
            found = measure(calls, Sampling(rounds, 3)).latencies
        for kind in KINDS:
            times[kind].append(round(found[kind].p50_ms, 4))
    return times


def exponent(times: list[float]) -> float:
    long = [i for i, length in enumerate(LENGTHS) if length >= 1024]
    x, y = np.log([LENGTHS[i] for i in long]), np.log([times[i] for i in long])
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def drawing(times: dict[str, list[float]]) -> str:
    """The curves on logarithmic axes, as SVG."""
    width, height, edge = 560, 360, 60
    top = max(max(t) for t in times.values()) * 1.3
    low = min(min(t) for t in times.values()) * 0.8

    def place(length: float, ms: float) -> tuple[float, float]:
        across = np.log(length / LENGTHS[0]) / np.log(LENGTHS[-1] / LENGTHS[0])
        up = np.log(ms / low) / np.log(top / low)
        return round(edge + across * (width - 1.6 * edge), 1), round(height - edge - up * (height - 1.5 * edge), 1)

    size = f'width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for length in LENGTHS:
        x, y = place(length, low)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{length}</text>')
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y}" y2="{edge / 2}" stroke="#ddd"/>')
    for power in range(int(np.floor(np.log10(low))) + 1, int(np.floor(np.log10(top))) + 1):
        x, y = place(LENGTHS[0], 10.0**power)
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g} ms</text>')
    for kind, colour in zip(KINDS, ("#c0392b", "#2471a3"), strict=True):
        points = [place(length, ms) for length, ms in zip(LENGTHS, times[kind], strict=True)]
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{points[-1][0] - 6}" y="{points[-1][1] - 8}" text-anchor="end" fill="{colour}">{kind}</text>'
        )
    parts.append(f'<text x="{width / 2}" y="{height - 14}" text-anchor="middle">tokens</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    set_threads(1)
    times = curve(arguments.rounds)
    found: dict[str, Any] = {"lengths": list(LENGTHS), "p50_ms": times, "model": ARGUMENTS}
    finish({**found, "exponent": {kind: exponent(t) for kind, t in times.items()}}, arguments.json)
    if arguments.svg:
        arguments.svg.write_text(drawing(times), encoding="utf-8")


if __name__ == "__main__":
    main()
