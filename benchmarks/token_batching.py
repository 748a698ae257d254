"""Token-budget batches against padded random batches: real tokens per second on texts of very different lengths.

    python benchmarks/token_batching.py --json token-batching.json

Lengths are drawn from a log-normal distribution (median 33 tokens, at most 256). Both train the same transformer, in
turn, on the same number of sequences in a batch on average. At least 1.5 times the tokens/s is asked for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reports import finish, ratio

from dlx_deploy.config import Teacher
from dlx_deploy.nn.data.token_batches import padding_share
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import Plan, TokenBatches, TokenFeed, TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, _Run

LIMIT, LONGEST, SEQUENCES, BUDGET = 1.5, 256, 1500, 4096
SPEC = TokenInput(2000, LONGEST)


def texts() -> TrainData:
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(3.5, 0.9, SEQUENCES).astype(int).clip(2, LONGEST)
    tokens = np.zeros((SEQUENCES, LONGEST), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = rng.integers(1, 2000, length)
    labels = rng.integers(0, 4, SEQUENCES)
    return TrainData(tokens, labels, tokens[:8], labels[:8], TokenFeed(0), 4)


class Padded(TokenBatches):
    """Random batches of one size, each padded to its longest: what a plain loader gives."""

    size = 1

    def plan(self, seed: int, processes: int) -> Plan:
        order = np.random.default_rng(seed).permutation(len(self.lengths))
        return [[rows] for rows in np.array_split(order, max(len(order) // self.size, 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(0)
    data = texts()
    settings = Teacher(epochs=arguments.rounds + 1, max_tokens=BUDGET, optimizer="adamw", learning_rate=1e-3)
    runs: dict[str, _Run] = {}
    for name in ("budget", "padded"):
        seed_all(0)
        model = build_model("transformer", {"depth": 2, "width": 128}, 4, SPEC)
        runs[name] = _Run(model, data, settings, supervised(0.0), RunContext(), Hooks(TOP1))
    budget = runs["budget"].source
    assert isinstance(budget, TokenBatches)
    padded = Padded(data, settings, torch.device("cpu"), 0)
    padded.size = SEQUENCES // len(budget.plan(0, 1))
    runs["padded"].source = padded
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(arguments.rounds + 1):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            began = time.perf_counter()
            runs[name]._epoch(i)
            seconds[name].append(time.perf_counter() - began)
    total = int(budget.lengths.sum())
    found: dict[str, Any] = {
        "tokens_per_s": {name: round(total / float(np.median(s[1:]))) for name, s in seconds.items()},
        "ratio": ratio(seconds["padded"][1:], seconds["budget"][1:]),
        "padding_share": {n: round(padding_share(r.source.plan(1, 1), budget.lengths), 3) for n, r in runs.items()},
        "steps": {n: len(r.source.plan(1, 1)) for n, r in runs.items()},
    }
    finish({"limit": LIMIT, "met": found["ratio"]["value"] >= LIMIT, **found}, arguments.json)


if __name__ == "__main__":
    main()
