"""Whether two graphs make the same of their inputs before the first layer: colours, layout, scale, normalisation; no
torch.

Preprocessing that differs costs more than any quantization, and nothing fails: the answers are only worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.comparison.noise import sqnr_db
from dlx_deploy.graph.comparison.pairing import LayerPair
from dlx_deploy.graph.comparison.tapped import Tap, row_tensors
from dlx_deploy.graph.model import batch_size
from dlx_deploy.graph.samples import Samples

__all__ = ["Front", "compare_fronts"]

SAMPLES = 16
SAME_DB = 30.0
"""FP16 leaves 60 and more, and nothing is on integers before the first layer."""
EXPLAINED = 0.999
"""The share of the variance that a difference in preprocessing must explain to be named."""
PIXEL_RANGE = 255.0
CHANNELS_AXIS = 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """What ``layer``, the first, reads: ``sqnr_db`` beside what it reads in floating point.

    ``differences``: what explains that it is not the same, by its name (``channels``, ``layout``, ``scale``,
    ``normalisation``, or ``unknown``) → in words.
    """

    layer: str
    sqnr_db: float
    differences: dict[str, str]


def compare_fronts(
    reference: ModelProto, written: ModelProto, layers: Sequence[LayerPair], samples: Samples, exact: bool
) -> Front | None:
    """Of the first of ``layers``; ``None`` where there is none that reads a row for each sample in both graphs.

    Raises:
        StageFailed: ONNX Runtime cannot run a graph so far.
    """
    ours, theirs = row_tensors(reference), row_tensors(written)
    first = next((x for x in layers if x.plain.input[0] in ours and x.reads in theirs), None)
    if first is None or ours[first.plain.input[0]].elements != theirs[first.reads].elements:
        return None
    plain, packed = Tap(reference, [first.plain.input[0]], exact=False), Tap(written, [first.reads], exact)
    size = batch_size(reference) or batch_size(written) or SAMPLES
    part = next(samples[: max(size, 1)].batches(size, fill=True))
    wanted, seen = (
        np.asarray(next(iter(tap.run(part.fitted(tap.shapes).feed()).values())), np.float64) for tap in (plain, packed)
    )
    near = sqnr_db(wanted, seen)
    differences = {} if near >= SAME_DB else _explained(wanted, seen)
    return Front(first.name, near, differences)


def _explained(wanted: Floats, seen: Floats) -> dict[str, str]:
    """The simplest difference that explains ``seen`` [N, C, ...]."""
    orders = {"": seen}
    if seen.ndim == 4:
        if seen.shape[1] > 1:
            orders["channels"] = seen[:, ::-1]
        if seen.shape[2] == seen.shape[3]:
            orders["layout"] = seen.swapaxes(2, 3)
    fits = {name: _fit(wanted, values) for name, values in orders.items() if values.shape == wanted.shape}
    best = max(fits, key=lambda name: fits[name][2] - (0 if not name else 1e-6), default=None)
    if best is None or fits[best][2] < EXPLAINED:
        return {"unknown": "the first layer reads something else, which no order of colours, layout or scale explains"}
    found = {}
    if best == "channels":
        found["channels"] = "its colours come in the other order (RGB and BGR are swapped)"
    if best == "layout":
        found["layout"] = "rows and columns are swapped (height and width)"
    factor, offset, _ = fits[best]
    if np.abs(factor - 1).max() > 0.02 or np.abs(offset).max() > 0.02 * max(float(wanted.std()), 1e-12):
        kind, said = _scaled(wanted, orders[best], factor, offset)
        found[kind] = said
    return found


def _fit(wanted: Floats, seen: Floats) -> tuple[Floats, Floats, float]:
    """Factor and offset of each channel with which ``seen`` is nearest to ``wanted``, and the share that they explain:
    seen = factor * wanted + offset."""
    axes = tuple(at for at in range(wanted.ndim) if at != CHANNELS_AXIS)
    middle, mean = wanted.mean(axis=axes, keepdims=True), seen.mean(axis=axes, keepdims=True)
    spread = np.square(wanted - middle).mean(axis=axes, keepdims=True)
    both = ((wanted - middle) * (seen - mean)).mean(axis=axes, keepdims=True)
    factor = np.where(spread > 0, both / np.where(spread > 0, spread, 1), 1.0)
    offset = mean - factor * middle
    left = np.square(seen - factor * wanted - offset).sum()
    whole = np.square(seen - mean).sum()
    return factor.reshape(-1), offset.reshape(-1), float(1 - left / whole) if whole > 0 else 0.0


def _scaled(wanted: Floats, seen: Floats, factor: Floats, offset: Floats) -> tuple[str, str]:
    low, high = float(seen.min()), float(seen.max())
    reads = (
        f"{low:.3g} to {high:.3g}, where the network in floating point reads {wanted.min():.3g} to {wanted.max():.3g}"
    )
    still = np.abs(offset).max() < 0.01 * max(np.abs(seen).max(), 1e-12)
    if still and np.ptp(factor) < 0.01 * np.abs(factor).max():
        known = next((f"{one:g}" for one in (PIXEL_RANGE, 1 / PIXEL_RANGE) if abs(factor[0] / one - 1) < 0.01), "")
        said = f"{known or f'{factor[0]:.4g}'} times as much"
        return (
            "scale",
            f"values come {said} (0..1 against 0..255): {reads}" if known else f"values come {said}: {reads}",
        )
    if low >= 0 and high <= PIXEL_RANGE and wanted.min() < 0:
        scale = "0..1" if high <= 1.001 else "0..255"
        return "normalisation", f"values are not normalised, they come as {scale}: {reads}"
    return "normalisation", f"values are normalised with another mean or standard deviation: {reads}"
