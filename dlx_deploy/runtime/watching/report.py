"""What a window of samples shows: each feature's distance from the build's samples, for people, JSON and metrics."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ..records import record
from .exposition import Family, Labels, gauge

__all__ = ["ClassShare", "DriftReport", "FeatureDrift"]


@record
class ClassShare:
    """The class whose share differs most: its share of the window, and that of the build's samples.

    ``number``: ``None``: all those together that the build's samples had not.
    """

    number: Optional[int]
    share: float
    usual: float


@record
class FeatureDrift:
    """One feature in a window: its distance from the reference, and up to which that is usual.

    Of a magnitude the two medians, of classes the one that ``moved`` most.
    """

    name: str
    distance: float
    threshold: float
    median: Optional[float] = None
    usual_median: Optional[float] = None
    moved: Optional[ClassShare] = None

    @property
    def drifted(self) -> bool:
        """Whether it is further away than chance explains."""
        return self.distance > self.threshold

    def describe(self) -> str:
        """The feature, for people."""
        how = f", median {self.median:.4g}, was {self.usual_median:.4g}" if self.median is not None else ""
        if self.moved is not None:
            what = "other classes" if self.moved.number is None else f"class {self.moved.number}"
            how = f", {what} {100 * self.moved.share:.1f} %, was {100 * self.moved.usual:.1f} %"
        return f"{self.name} {self.distance:.3f} (usual: up to {self.threshold:.3f}{how})"

    def to_dict(self) -> Dict[str, object]:
        """The feature but for its name, as JSON-ready values."""
        table = {key: value for key, value in vars(self).items() if key not in ("name", "moved")}
        return {**table, "moved": None if self.moved is None else dict(vars(self.moved))}


@record
class DriftReport:
    """The last window: its number from 1, and how many in a row, this one included, have drifted."""

    window: int
    samples: int
    in_a_row: int
    drifted_windows: int
    features: Tuple[FeatureDrift, ...]

    @property
    def drifted(self) -> Tuple[FeatureDrift, ...]:
        """The features that have, the furthest in units of its threshold first."""
        found = [one for one in self.features if one.drifted]
        return tuple(sorted(found, key=lambda one: -one.distance / one.threshold))

    def describe(self) -> str:
        """The window, for people."""
        drifted = "; ".join(one.describe() for one in self.drifted) or "no drift"
        return f"drift: window {self.window} of {self.samples} samples: {drifted}"

    def to_dict(self) -> Dict[str, object]:
        """The report as JSON-ready values."""
        features = {one.name: one.to_dict() for one in self.features}
        return {**vars(self), "features": features, "drifted": [one.name for one in self.drifted]}

    def families(self, labels: Labels) -> List[Family]:
        """The report in numbers, for ``exposition``."""
        distances = tuple(("", {**labels, "feature": one.name}, one.distance) for one in self.features)
        thresholds = tuple(("", {**labels, "feature": one.name}, one.threshold) for one in self.features)
        far, usual = "Distance of the last window from the build's samples.", "Up to which a distance is usual."
        windows = "Windows that were held against the build's samples."
        drifted = "Windows of which a feature was beyond its threshold."
        return [
            Family("dlx_drift_distance", "gauge", far, distances),
            Family("dlx_drift_threshold", "gauge", usual, thresholds),
            Family("dlx_drift_windows_total", "counter", windows, (("", labels, self.window),)),
            Family("dlx_drift_drifted_windows_total", "counter", drifted, (("", labels, self.drifted_windows),)),
            gauge("dlx_drift_in_a_row", "Windows in a row, up to the last, that drifted.", self.in_a_row, labels),
        ]
