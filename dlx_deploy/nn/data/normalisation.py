"""Mean and standard deviation per channel: as configured, else as measured."""

from __future__ import annotations

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Images
from dlx_deploy.nn.data.frames import rescaled

__all__ = ["normalisation_of"]


def normalisation_of(config: Data, seen: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation on the 0..1 scale; of ``seen``, uint8[N, H, W, C], where ``config`` has none.

    Raises:
        DataError: there is not one value for each channel.
    """
    mean, std = list(config.mean), list(config.std)
    if not mean or not std:
        measured = _measure(seen)
        mean, std = mean or measured[0], std or measured[1]
    mean, std = rescaled(mean, config.scale), rescaled(std, config.scale)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != seen.shape[3]:
            raise DataError(
                f"data.{key} has {len(values)} values {values}; the images have {seen.shape[3]} channels: "
                "give one value for each, or none to measure them"
            )
    return mean, std


def _measure(train: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel on the 0..1 scale, from exact integer counts."""
    counts = np.zeros((train.shape[3], 256), dtype=np.int64)
    for start in range(0, len(train), 256):  # bincount widens to int64: a part at a time
        part = train[start : start + 256]
        counts += np.stack([np.bincount(part[..., c].reshape(-1), minlength=256) for c in range(train.shape[3])])
    levels = np.arange(256, dtype=np.float64) / 255
    means = [float(n @ levels / n.sum()) for n in counts]
    deviations = [float(np.sqrt(n @ (levels - m) ** 2 / n.sum())) for n, m in zip(counts, means, strict=True)]
    # A constant channel has no spread: one grey level keeps the division finite.
    return [round(m, 6) for m in means], [round(max(d, 1 / 255), 6) for d in deviations]
