"""What the training benchmarks share: a report with the machine and the versions, printed and written."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlx_deploy.runtime.machine import machine_info

__all__ = ["finish", "ratio"]

RESAMPLES = 2_000


def ratio(ours: list[float], theirs: list[float], seed: int = 0) -> dict[str, float]:
    """The median of the rounds' ratios, with a 95 % bootstrap interval over rounds: both were timed in turn."""
    rounds = np.array(ours) / np.array(theirs)
    picks = np.random.default_rng(seed).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    low, high = np.percentile(np.median(rounds[picks], axis=1), [2.5, 97.5])
    return {"value": round(float(np.median(rounds)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def finish(found: dict[str, Any], path: Path | None) -> None:
    """Print ``found`` with the machine and the versions, and write it to ``path``."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {name: metadata.version(name) for name in ("accelerate", "torch", "torchvision")}
    report = {"schema": 1, "machine": machine_info(), "device": device, "versions": versions, **found}
    text = json.dumps(report, sort_keys=True, indent=1) + "\n"
    sys.stdout.write(text)
    if path is not None:
        path.write_text(text, encoding="utf-8")
