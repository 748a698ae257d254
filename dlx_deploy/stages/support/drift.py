"""What a package carries for a drift watch: how features of the test samples are distributed, and what is usual.

A window of n samples of the field is held against the m samples here. Both are drawn from what the field is, so their
distance is at most that of the window from it and that of the reference from it. A bound of each is found by drawing
samples with replacement (n and m of them), jointly for all features, and a threshold is their sum: with a confidence of
``REFERENCE_CONFIDENCE`` in the reference, at most ``FALSE_ALARMS`` of all windows of undrifted samples have a feature
beyond its threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.untyped import Array
    from dlx_deploy.runtime.watching.reference import FeatureReference

    Floats = NDArray[np.float64]

__all__ = ["FALSE_ALARMS", "LEAST_SAMPLES", "REFERENCE_CONFIDENCE", "WINDOWS", "drift_file"]

WINDOWS = (64, 256, 1024)
FALSE_ALARMS, REFERENCE_CONFIDENCE = 0.01, 0.95
LEAST_SAMPLES = 50
"""A reference of fewer says nothing: its own bound would hide every drift."""
BINS = 32
MOST_CLASSES = 2000
DRAWS = 4000
"""Forty of them lie above the bound of 1 %."""
SCALE = 0.95  # a feature's distances are compared with those of others in units of this quantile of its own
SEED = 0
BLOCK = 500  # draws at a time: bounds the memory, not the result


def drift_file(features: Arrays) -> bytes | None:
    """``drift.json`` for ``features`` of the same samples, [m] each; ``None`` where there are none, or too few samples.

    Floats are magnitudes, and whole numbers classes.
    """
    import numpy as np

    from dlx_deploy.runtime.package.archive import to_json
    from dlx_deploy.runtime.watching.reference import DriftReference, parse_reference

    count = min((len(values) for values in features.values()), default=0)
    if count < LEAST_SAMPLES:
        return None
    # Logits of a mask may be infinite where no pixel's answer is in doubt; what is no number has no distribution. And
    # hundreds of samples say nothing of the shares of thousands of classes.
    known = {
        name: of
        for name, of in features.items()
        if np.isfinite(of).all() and (_is_magnitude(of) or of.max() < MOST_CLASSES)
    }
    plain = [_plain(name, values) for name, values in sorted(known.items())]
    if not plain:
        return None
    thresholds = _thresholds(plain, [features[one.name] for one in plain], count)
    judged = tuple(_with(one, limits) for one, limits in zip(plain, thresholds, strict=True))
    data = to_json(DriftReference(count, WINDOWS, judged).to_dict())
    parse_reference(data, "the new package")
    return data


def _plain(name: str, values: Array) -> FeatureReference:
    """A feature without thresholds: bins of about as many samples each, or a bin for each class and one for others."""
    import numpy as np

    from dlx_deploy.runtime.watching.reference import FeatureReference

    if not _is_magnitude(values):
        counts = np.bincount(values, minlength=int(values.max()) + 2)
        return FeatureReference(name, None, tuple(counts.tolist()), ())
    values = values.astype(np.float32)
    # Quantiles that are values of the sample: as JSON they are the same numbers on a device.
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="lower"))
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return FeatureReference(name, tuple(edges.tolist()), tuple(counts.tolist()), (), float(np.median(values)))


def _is_magnitude(values: Array) -> bool:
    return bool(values.dtype.kind == "f")


def _with(feature: FeatureReference, thresholds: Floats) -> FeatureReference:
    import dataclasses

    return dataclasses.replace(feature, thresholds=tuple(round(float(one), 6) for one in thresholds))


def _thresholds(features: list[FeatureReference], values: list[Array], count: int) -> Floats:
    """Of each feature the threshold for each window: float64[features, windows]."""
    import numpy as np

    # One sample more, which is in the last bin of everything: it is drawn up to three times in 95 % of the draws, the
    # rule of three for what was not seen. Without it a feature that never varied would alarm at the first exception.
    bins = [np.append(one.bins(value), len(one.counts) - 1) for one, value in zip(features, values, strict=True)]
    own = _bound(features, bins, count, 1 - REFERENCE_CONFIDENCE)
    return np.stack([own + _bound(features, bins, window, FALSE_ALARMS) for window in WINDOWS], axis=1)


def _bound(features: list[FeatureReference], bins: list[Array], size: int, level: float) -> Floats:
    """Distances that, in all but ``level`` of the draws of ``size`` samples, no feature exceeds: float64[features].

    The largest of all distances, each in units of a quantile of its own, has one bound (Westfall and Young, 1993: the
    joint distribution of all features is that of the samples).
    """
    import numpy as np

    rng, total = np.random.default_rng([SEED, size]), len(bins[0])
    inside = _inside(features, bins)
    drawn: list[Floats] = []
    for _ in range(0, DRAWS, BLOCK):
        draws = rng.integers(0, total, (BLOCK, size))
        weights = np.bincount((draws + np.arange(BLOCK)[:, None] * total).reshape(-1), minlength=BLOCK * total)
        drawn.append(_distances(features, weights.reshape(BLOCK, total).astype(np.float32) @ inside))
    distances = np.concatenate(drawn)
    scale = np.maximum(np.quantile(distances, SCALE, axis=0), 1 / total)
    bound: Floats = scale * np.quantile((distances / scale).max(axis=1), 1 - level, method="higher")
    return bound


def _inside(features: list[FeatureReference], bins: list[Array]) -> Array:
    """Which sample is in which bin, those of all features side by side: float32[samples, bins], 0 or 1."""
    import numpy as np

    parts = [np.zeros((len(of), len(one.counts)), np.float32) for one, of in zip(features, bins, strict=True)]
    for part, of in zip(parts, bins, strict=True):
        part[np.arange(len(of)), of] = 1
    return np.concatenate(parts, axis=1)


def _distances(features: list[FeatureReference], counts: Array) -> Floats:
    """How far each draw is from the reference: float64[draws, features]; ``counts``: [draws, bins] of all features."""
    import numpy as np

    from dlx_deploy.runtime.watching.distances import energy, kolmogorov_smirnov

    far, start = [], 0
    for one in features:
        own = counts[:, start : start + len(one.counts)].astype(np.float64)
        reference = np.asarray(one.counts, np.float64)
        measure = energy if one.edges is None else kolmogorov_smirnov
        far.append(measure(own / own.sum(axis=1, keepdims=True), reference / reference.sum()))
        start += len(one.counts)
    return np.stack(far, axis=1)
