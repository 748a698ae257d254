"""What a package knows of the samples that it was proven on, for a device to hold the field against: one JSON file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Dict, List, NoReturn, Optional, Tuple

import numpy as np

from ..errors import PackageError
from ..filenames import DRIFT
from ..records import record
from ..strict_json import from_json
from ..untyped import JsonTable
from ..words import shortened
from .distances import energy, kolmogorov_smirnov

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.contents import Package

__all__ = ["SCHEMA", "DriftReference", "FeatureReference", "parse_reference", "read_reference"]

SCHEMA = 1
MOST_FEATURES, MOST_BINS, MOST_WINDOWS, MOST_SAMPLES = 256, 4096, 16, 2**31


@record
class FeatureReference:
    """One feature. ``edges``: of a magnitude, the upper ends of all bins but the last; ``None``: it is a class.

    ``counts``: samples in each bin, or of each class. ``thresholds``: the distance that is still usual, for each
    window. ``median``: of a magnitude.
    """

    name: str
    edges: Optional[Tuple[float, ...]]
    counts: Tuple[int, ...]
    thresholds: Tuple[float, ...]
    median: Optional[float] = None

    def bins(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """The bin of each value, int64[n]; what is no number, or no class, is in the last one."""
        last = len(self.counts) - 1
        if self.edges is None:
            known = (values >= 0) & (values <= last)
            return np.where(known, values, last).astype(np.int64)
        # NaN sorts behind every edge
        return np.searchsorted(np.asarray(self.edges, np.float32), values.astype(np.float32))

    @property
    def usual(self) -> NDArray[np.float64]:
        """The share of each bin."""
        counts = np.asarray(self.counts, np.float64)
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    def shares(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """The share of ``values`` in each bin."""
        counts = np.bincount(self.bins(values), minlength=len(self.counts))
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    def distance(self, values: NDArray[np.float32]) -> float:
        """How far the distribution of ``values`` is from the reference, 0 to 1."""
        measure = energy if self.edges is None else kolmogorov_smirnov
        return float(measure(self.shares(values), self.usual))

    def to_dict(self) -> Dict[str, object]:
        """As the file holds it."""
        table: Dict[str, object] = {
            "name": self.name,
            "kind": "class" if self.edges is None else "magnitude",
            "counts": list(self.counts),
            "thresholds": list(self.thresholds),
        }
        return table if self.edges is None else {**table, "edges": list(self.edges), "median": self.median}


@record
class DriftReference:
    """Features of ``samples`` samples; ``windows``: how many samples of the field may be held against them at once."""

    samples: int
    windows: Tuple[int, ...]
    features: Tuple[FeatureReference, ...]

    def to_dict(self) -> Dict[str, object]:
        """As the file holds it."""
        features = [one.to_dict() for one in self.features]
        return {"schema": SCHEMA, "samples": self.samples, "windows": list(self.windows), "features": features}


def read_reference(package: Package) -> Optional[DriftReference]:
    """What ``package`` carries; ``None``: it was built without, or before there was such a thing.

    Raises:
        PackageError: as ``parse_reference``.
    """
    return None if package.drift is None else parse_reference(package.drift, package.path or package.name)


def parse_reference(data: bytes, origin: str) -> DriftReference:
    """The reference in ``data``; ``origin`` is whose, in messages.

    Raises:
        PackageError: no JSON, a newer schema, or a field that is missing or wrong.
    """
    try:
        table = from_json(data)
    except ValueError as e:
        raise PackageError(f"{origin}: {DRIFT} is not JSON ({e}); build the package again") from e
    reader = _Reader(origin)
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        seen = table.get("schema") if isinstance(table, dict) else table
        reader.refuse("schema", seen, f"must be {SCHEMA}, what this runtime reads")
    samples = reader.whole(table, "samples", "samples")
    windows = reader.numbers(table, "windows", "windows", MOST_WINDOWS)
    if not all(isinstance(n, int) and 1 <= n <= MOST_SAMPLES for n in windows) or list(windows) != sorted(set(windows)):
        reader.refuse("windows", list(windows), "must be whole numbers that grow")
    listed = table.get("features")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_FEATURES:
        reader.refuse("features", listed, f"must be a list of 1 to {MOST_FEATURES}")
    features = tuple(reader.feature(one, f"features.{i}", len(windows)) for i, one in enumerate(listed))
    names = [one.name for one in features]
    if len(set(names)) < len(names):
        reader.refuse("features", names, "must have different names")
    if any(sum(one.counts) != samples for one in features):
        reader.refuse("samples", samples, "must be the sum of the counts of each feature")
    return DriftReference(samples, tuple(int(n) for n in windows), features)


class _Reader:
    """Reads fields strictly: a package may be anybody's."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def refuse(self, path: str, value: object, rule: str) -> NoReturn:
        raise PackageError(f"{self._origin}: {DRIFT}: {path} is {shortened(value)}; {rule}")

    def whole(self, table: JsonTable, name: str, path: str) -> int:
        value = table.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_SAMPLES:
            self.refuse(path, value, f"must be a whole number, 1 to {MOST_SAMPLES}")
        return value

    def numbers(self, table: JsonTable, name: str, path: str, most: int, least: int = 1) -> Tuple[float, ...]:
        value = table.get(name)
        if not isinstance(value, list) or not least <= len(value) <= most or not all(map(_is_number, value)):
            self.refuse(path, value, f"must be a list of {least} to {most} finite numbers")
        return tuple(value)

    def feature(self, table: object, path: str, windows: int) -> FeatureReference:
        if not isinstance(table, dict):
            self.refuse(path, table, "must be a table")
        name, kind = table.get("name"), table.get("kind")
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or len(name) > 64:
            self.refuse(f"{path}.name", name, "must be a word of letters, digits and _")
        if kind not in ("class", "magnitude"):
            self.refuse(f"{path}.kind", kind, "must be class or magnitude")
        counts = self.numbers(table, "counts", f"{path}.counts", MOST_BINS)
        if not all(isinstance(n, int) and 0 <= n <= MOST_SAMPLES for n in counts) or not sum(counts):
            self.refuse(f"{path}.counts", list(counts), "must be whole numbers from 0, not all 0")
        thresholds = self.numbers(table, "thresholds", f"{path}.thresholds", windows, windows)
        if not all(0 < one <= 2 for one in thresholds):
            self.refuse(f"{path}.thresholds", list(thresholds), "must be above 0 and at most 2")
        edges, median = None, None
        if kind == "magnitude":
            edges = self._edges(table, f"{path}.edges", len(counts) - 1)
            (median,) = self.numbers({"median": [table.get("median")]}, "median", f"{path}.median", 1)
        return FeatureReference(name, edges, tuple(int(n) for n in counts), thresholds, median)

    def _edges(self, table: JsonTable, path: str, count: int) -> Tuple[float, ...]:
        edges: List[float] = list(self.numbers(table, "edges", path, count, count))
        if any(a >= b for a, b in zip(edges, edges[1:])):
            self.refuse(path, edges, "must grow")
        return tuple(edges)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
