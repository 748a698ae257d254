"""Whether the field still looks like what the package was proven on: features of each sample, a window at a time.

Nothing leaves the process but distances, medians and names; of samples only their features are kept, for one window.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError, PackageError
from ..records import record
from ..tasks.arrays import Arrays, count_of, rows_of, samples_of
from ..tasks.features import features_of
from .reference import DriftReference, FeatureReference, read_reference
from .report import ClassShare, DriftReport, FeatureDrift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.contents import Package
    from ..predictor import Run
    from ..untyped import Array

__all__ = ["DriftOptions", "DriftWatch"]

WINDOW = 256


@record
class DriftOptions:
    """``window``: samples that are held against the reference at once, one of those that it knows; each is in one.

    ``every``: each so many samples one is looked at. Samples must be about as independent as those of the reference:
    of a camera at 30 frames a second, take one a second or fewer.
    """

    window: int = WINDOW
    every: int = 1


class DriftWatch:
    """Collects features from any thread; ``heard`` is called with the report of each window.

    Raises:
        PackageError: the package has no reference. InputError: it knows no such window, or ``every`` is under 1.
    """

    def __init__(
        self, package: Package, options: DriftOptions, heard: Callable[[DriftReport], None] = lambda report: None
    ) -> None:
        reference = read_reference(package)
        if reference is None:
            raise PackageError(
                f"{package.name} {package.version} carries no statistics to hold the field against; build it again "
                "with package.parity_samples above 0, or watch without drift"
            )
        _check(options, reference)
        self.reference, self.options, self._task, self._heard = reference, options, package.task, heard
        self._lock = threading.Lock()
        self._rows = np.zeros((options.window, len(reference.features)), np.float32)
        self._seen = self._kept = self._windows = self._in_a_row = self._drifted = 0
        self.last: Optional[DriftReport] = None

    def see(self, feeds: Arrays, outputs: Arrays) -> None:
        """A run of the model: what it read and answered. Copies that fill up a fixed batch size are no samples.

        Raises:
            ValueError: the task says other features than when the package was built.
        """
        with self._lock:
            some = self._some(samples_of(feeds))
        if not some:
            return
        if some != range(count_of(feeds)):
            feeds, outputs = rows_of(feeds, list(some)), rows_of(outputs, list(some))
        rows = self._matrix(features_of(self._task, feeds, outputs))
        reports = []
        with self._lock:
            for start in range(0, len(rows), self.options.window):
                reports += self._keep(rows[start : start + self.options.window])
        for report in reports:
            self._heard(report)

    def to_dict(self) -> Dict[str, object]:
        """What is watched and what the last window said, as JSON-ready values."""
        options = {"window": self.options.window, "every": self.options.every, "kept": self._kept}
        return {
            **options,
            "samples_at_build": self.reference.samples,
            "last": self.last.to_dict() if self.last else None,
        }

    def around(self, run: Run) -> Run:
        """``run``, each of its calls seen: for ``Predictor.through``."""

        def seen(names: Optional[Sequence[str]], feeds: Arrays) -> List[Array]:
            values = run(names, feeds)
            self.see(feeds, dict(zip(names or (), values)))
            return values

        return seen

    def conclude(self) -> str:
        """All windows in a sentence, for people, when no more samples come; those that filled none are judged by the
        largest window that they fill."""
        with self._lock:
            rest = [n for n in self.reference.windows if n <= self._kept]
            if rest:
                self._heard(self._report(self._rows[: self._kept], rest[-1]))
                self._kept = 0
            elif not self._windows:
                least = self.reference.windows[0]
                return f"drift: {self._kept} samples are too few to say; at least {least} make a window"
            return f"drift: {self._drifted} of {self._windows} windows drifted"

    def judge(self, rows: NDArray[np.float32], window: int) -> Tuple[FeatureDrift, ...]:
        """The features of samples, float32[n, features], as of ``window``, held against the reference."""
        at = self.reference.windows.index(window)
        return tuple(_judged(one, rows[:, i], at) for i, one in enumerate(self.reference.features))

    def _some(self, count: int) -> range:
        """Which of the next ``count`` samples are looked at."""
        first = -self._seen % self.options.every
        self._seen += count
        return range(first, count, self.options.every)

    def _matrix(self, features: Arrays) -> NDArray[np.float32]:
        names = [one.name for one in self.reference.features]
        missing = [name for name in names if name not in features]
        if missing:
            raise ValueError(f"the task says nothing of {missing[0]}, which the package has a reference of")
        return np.stack([features[name] for name in names], axis=1).astype(np.float32)

    def _keep(self, rows: NDArray[np.float32]) -> List[DriftReport]:
        """Adds at most a window of rows; the report of the window that they fill, if they do."""
        taken = rows[: self.options.window - self._kept]
        self._rows[self._kept : self._kept + len(taken)] = taken
        self._kept += len(taken)
        if self._kept < self.options.window:
            return []
        report = self._report(self._rows, self.options.window)
        self._kept = len(rows) - len(taken)
        self._rows[: self._kept] = rows[len(taken) :]
        return [report]

    def _report(self, rows: NDArray[np.float32], window: int) -> DriftReport:
        features = self.judge(rows, window)
        self._windows += 1
        drifted = any(one.drifted for one in features)
        self._in_a_row = self._in_a_row + 1 if drifted else 0
        self._drifted += drifted
        self.last = DriftReport(self._windows, len(rows), self._in_a_row, self._drifted, features)
        return self.last


def _judged(reference: FeatureReference, values: NDArray[np.float32], at: int) -> FeatureDrift:
    distance, threshold = reference.distance(values), reference.thresholds[at]
    if reference.edges is None:
        shares, usual = reference.shares(values), reference.usual
        most = int(np.abs(shares - usual).argmax())
        number = most if most < len(shares) - 1 else None  # the last is of all that are no class of the build's
        moved = ClassShare(number, float(shares[most]), float(usual[most]))
        return FeatureDrift(reference.name, distance, threshold, moved=moved)
    numbers = values[np.isfinite(values)]
    median = float(np.median(numbers)) if len(numbers) else None
    return FeatureDrift(reference.name, distance, threshold, median, reference.median)


def _check(options: DriftOptions, reference: DriftReference) -> None:
    if options.window not in reference.windows:
        known = ", ".join(map(str, reference.windows))
        raise InputError(f"the window of drift is {options.window}; must be one that the package knows: {known}")
    if options.every < 1:
        raise InputError(f"drift looks at every {options.every} samples; must be 1 or more")
