"""Whether this machine's backend answers as the builder did, on as many real samples as the package knows.

A self-test compares a few golden samples closely. A miscompiled engine may be right on those, and accurate enough on
average, and still compute something else: that shows on hundreds of samples, as noise or as other decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError, PackageError, SelfTestFailed
from ..package.parity import DECISIONS, ParityBounds, ParityTable, decisions_of
from ..predictor import Predictor
from ..records import record
from ..statistics.floors import most_of
from ..tasks.arrays import Arrays, block_rows, count_of, rows_of
from ..tasks.sketches import sketched
from ..untyped import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK", "Parity", "ParityResult", "check_parity", "decided_otherwise", "noise_db"]

BLOCK = 128  # samples per run at most: bounds the memory, not the result
FALSE_ALARMS = 1e-3
"""Of honest backends, the share that has more other decisions than are allowed."""
OTHER_SHARE = 0.1
"""A sample is decided otherwise where more than this share of its decisions are others: of a class, the one that there
is; of pixels a tenth, since near ties turn anywhere along an edge."""
FEW = 100
"""Samples under which the result says that there should be more."""
CAP_DB = 200.0
"""Stands for no noise at all: JSON has no infinite numbers."""


@record
class ParityResult:
    """How a backend's answers compare with the builder's on ``samples`` of the ``known`` ones, and the bounds.

    ``sqnr_db``, ``worst_db``: of the output that is furthest away, at most 200 (the same bits). ``differing``: samples
    that are decided otherwise, of which ``most_differing`` are allowed; ``None`` where the task decides nothing.
    """

    backend: str
    noun: str
    samples: int
    known: int
    sqnr_db: float
    worst_db: float
    bounds: ParityBounds
    differing: Optional[int]
    most_differing: int

    @property
    def faults(self) -> List[str]:
        """Which bounds are missed, for people."""
        faults = []
        if self.sqnr_db < self.bounds.sqnr_db:
            faults.append(f"SQNR is {self.sqnr_db:.1f} dB; must be at least {self.bounds.sqnr_db:.1f}")
        if self.worst_db < self.bounds.worst_db:
            rule = f"must be at least {self.bounds.worst_db:.1f}"
            faults.append(f"the furthest of the {self.noun} is at {self.worst_db:.1f} dB; {rule}")
        if self.differing is not None and self.differing > self.most_differing:
            rule = f"at most {self.most_differing} may be"
            faults.append(f"{self.differing} of {self.samples} {self.noun} are decided otherwise; {rule}")
        return faults

    def failure(self) -> Optional[SelfTestFailed]:
        """The error that a missed bound amounts to, or ``None``."""
        if not self.faults:
            return None
        return SelfTestFailed(
            f"{self.backend} does not answer as the builder did: {'; '.join(self.faults)}. Try another version of it, "
            "or another backend (--backend); do not deploy on this machine until it passes"
        )

    def describe(self) -> str:
        """The comparison in a line, for people."""
        seen = [f"SQNR {_db(self.sqnr_db)} (at least {self.bounds.sqnr_db:.1f} dB)"]
        seen.append(f"furthest {_db(self.worst_db)} (at least {self.bounds.worst_db:.1f} dB)")
        if self.differing is not None:
            seen.append(f"{self.differing} decided otherwise (at most {self.most_differing})")
        few = f"; {self.samples} show little, give the test split of the build" if self.samples < FEW else ""
        verdict = "differs" if self.faults else "agrees"
        asked = f"{self.samples} of the {self.known} {self.noun} whose answers the package carries"
        return f"parity with the builder: {self.backend} {verdict} on {asked}: {', '.join(seen)}{few}"

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""
        values = {key: value for key, value in vars(self).items() if key not in ("noun", "bounds")}
        verdict = "fail" if self.faults else "pass"
        return {**values, "verdict": verdict, "bounds": vars(self.bounds)}


class Parity:
    """Answers held against those that a package carries, block by block."""

    def __init__(self, predictor: Predictor, table: ParityTable) -> None:
        self._predictor, self._table = predictor, table
        self._rows = {int(digest): row for row, digest in enumerate(table.digests)}
        self._noise: Dict[str, Dict[int, float]] = {name: {} for name in table.answers}
        self._differing: Dict[int, bool] = {}

    def known(self, digests: NDArray[np.uint64]) -> List[int]:
        """Which of the samples the package carries answers to: their numbers."""
        return [i for i, digest in enumerate(digests) if int(digest) in self._rows]

    def add(self, digests: NDArray[np.uint64], outputs: Arrays) -> None:
        """Holds the ``outputs`` for samples with these digests against those that are carried; others are passed over.

        Raises:
            SelfTestFailed: one is NaN or infinite. PackageError: the table is of another task.
        """
        own = self.known(digests)
        if not own:
            return
        rows = [self._rows[int(digests[i])] for i in own]
        some, task = rows_of(outputs, own), self._predictor.package.task.outputs
        for name, sketch in sketched(some, task.tensors).items():
            apart = sketch.astype(np.float64) - self._table.answers[name][rows]
            noise = (apart**2).sum(axis=1)
            if not np.isfinite(noise).all():
                raise SelfTestFailed(
                    f"{self._predictor.backend.name} gives NaN or infinite {name}; do not deploy it here"
                )
            self._noise[name].update(zip(rows, noise.tolist()))
        decided, wanted = decisions_of(task, some), self._table.decisions
        if decided is not None and wanted is not None:
            if decided.shape[1] != wanted.shape[1]:
                raise PackageError(
                    f"{DECISIONS!r} has {wanted.shape[1]} decisions for a sample; the task makes {decided.shape[1]}: "
                    "build the package again"
                )
            other = decided_otherwise(decided, wanted[rows])
            self._differing.update(zip(rows, other.tolist()))

    def result(self) -> Optional[ParityResult]:
        """The comparison of all that were added, each sample once; ``None`` if the package carries none of them."""
        package, backend = self._predictor.package, self._predictor.backend
        samples = max(map(len, self._noise.values()), default=len(self._differing))
        if not samples:
            return None
        exact = self._table.exact if package.exact_qdq and backend.record.exact else None
        bounds = exact or self._table.other
        pairs = [noise_db(list(self._noise[name].values()), self._table.answers[name]) for name in self._noise]
        return ParityResult(
            backend=backend.name,
            noun=package.task.inputs.noun,
            samples=samples,
            known=len(self._rows),
            sqnr_db=min((mean for mean, _ in pairs), default=CAP_DB),
            worst_db=min((worst for _, worst in pairs), default=CAP_DB),
            bounds=bounds,
            differing=sum(self._differing.values()) if self._differing else None,
            most_differing=most_of(samples, bounds.differing, FALSE_ALARMS),
        )


def check_parity(predictor: Predictor, feeds: Arrays) -> ParityResult:
    """How the backend's answers to ``feeds``, as ``Predictor.read`` gave them, compare with the builder's.

    Raises:
        InputError: the package carries no answers, or none to these samples.
        SelfTestFailed: an answer is NaN or infinite.
    """
    package, inputs = predictor.package, predictor.package.task.inputs
    if package.parity is None:
        raise InputError(
            "the package carries no answers to compare with: it was built by an older dlx-deploy, or with "
            "package.parity_samples = 0; build it again, or use selftest without --data"
        )
    parity, digests = Parity(predictor, package.parity), inputs.digests(feeds)
    own = parity.known(digests)
    size = block_rows((*inputs.tensors, *package.task.outputs.tensors), BLOCK)
    for start in range(0, len(own), size):
        predictor.tell(start, len(own), predictor.package.task.inputs.noun)
        block = own[start : start + size]
        parity.add(digests[block], predictor.run(inputs.trim(rows_of(feeds, block))))
    result = parity.result()
    if result is None:
        raise InputError(
            f"the package carries the builder's answers to {len(package.parity.digests)} {inputs.noun}, and none of "
            f"the {count_of(feeds)} given is among them; give the test split that it was built with"
        )
    return result


def decided_otherwise(decided: Array, wanted: Array) -> NDArray[np.bool_]:
    """Which samples have other decisions, [n, q], than the ``wanted`` ones: bool[n]."""
    other: NDArray[np.bool_] = (decided != wanted).mean(axis=1) > OTHER_SHARE
    return other


def noise_db(noise: Sequence[float], answers: NDArray[np.float32]) -> Tuple[float, float]:
    """The signal-to-noise ratio in dB of answers whose squared differences are ``noise``, and that of the worst.

    The signal is what tells the samples apart: the mean squared distance of the right ``answers`` [n, size] from their
    mean. A constant part of them, however large, carries nothing.
    """
    wanted = answers.astype(np.float64)
    signal = float(((wanted - wanted.mean(axis=0)) ** 2).sum(axis=1).mean())
    return _ratio_db(signal, float(np.mean(noise))), _ratio_db(signal, float(np.max(noise)))


def _ratio_db(signal: float, noise: float) -> float:
    if noise <= 0 or signal <= 0:
        return CAP_DB if noise <= 0 else -CAP_DB
    return float(np.clip(10 * np.log10(signal / noise), -CAP_DB, CAP_DB))


def _db(value: float) -> str:
    return "the same bits" if value >= CAP_DB else f"{value:.1f} dB"
