"""Whether this machine computes what the builder computed: golden inputs through the model, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Sequence, Tuple

import numpy as np

from ..errors import SelfTestFailed
from ..predictor import Predictor
from ..records import record
from ..tasks.arrays import Arrays, Tolerance, count_of, joined, rows_of
from ..untyped import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OutputDifference", "SelfTestResult", "self_test"]

DEPENDS = "Together all agree: the model's answers depend on the batch; build the package again, and do not deploy it"


@record
class OutputDifference:
    """How far an output was from its golden values at most, and how far it may be: ``atol + rtol * |golden|``."""

    name: str
    max_abs_diff: float
    atol: float
    rtol: float

    def describe(self) -> str:
        """The difference, for people."""
        return f"{self.name} within {self.max_abs_diff:.3g} (allowed: {self.atol:g} + {self.rtol:g} * |golden|)"


@record
class SelfTestResult:
    """A self-test that passed: ``images`` golden samples, and each output's difference from its golden values."""

    images: int
    outputs: Tuple[OutputDifference, ...]

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values; beside ``images`` those of the first output."""
        first, *_ = tables = [vars(output) for output in self.outputs]
        numbers = {key: value for key, value in first.items() if key != "name"}
        return {"images": self.images, **numbers, "outputs": tables}


def self_test(predictor: Predictor) -> SelfTestResult:
    """How close the golden samples' outputs come to the golden ones; every answer must be the same.

    All are asked together, then each alone, then an odd number of them backwards: an answer must not depend on its
    neighbours. A value agrees if it differs by at most ``atol + rtol * |golden|``; where the backend runs the graph in
    exact arithmetic, ``exact_atol`` takes the place of ``atol``. What else makes an answer the same is the task's.

    Raises:
        SelfTestFailed: names the first sample that differs, what was expected and what came out.
    """
    package = predictor.package
    exact = package.exact_qdq and predictor.backend.record.exact
    tolerances = {name: tolerance.on(exact) for name, tolerance in package.tolerances.items()}
    fault = package.task.inputs.sample_fault(package.golden_inputs)
    if fault:
        raise SelfTestFailed(fault)
    comparison = _Comparison(predictor, tolerances)
    golden, count = package.golden_inputs, count_of(package.golden_inputs)
    comparison.check(_asked(predictor, golden), range(count))
    singles = list(package.task.inputs.samples) or [rows_of(golden, slice(i, i + 1)) for i in range(count)]
    comparison.check(joined([_asked(predictor, single) for single in singles]), range(count), " alone")
    backwards = list(range(count))[::-1][: count - 1 + count % 2]
    comparison.check(_asked(predictor, rows_of(golden, backwards)), backwards, f" in a batch of {len(backwards)}")
    return SelfTestResult(count, comparison.differences())


class _Comparison:
    """Outputs held against the golden ones, and the largest differences so far."""

    def __init__(self, predictor: Predictor, tolerances: Mapping[str, Tolerance]) -> None:
        self._package, self._tolerances = predictor.package, tolerances
        self._furthest: Dict[str, float] = {}

    def check(self, outputs: Arrays, rows: Sequence[int], how: str = "") -> None:
        """Holds ``outputs`` against the golden ones of ``rows``; ``how`` they were asked.

        Raises:
            SelfTestFailed: one differs too much, or is another answer.
        """
        task, golden = self._package.task, rows_of(self._package.golden_outputs, list(rows))
        agreement = task.outputs.compare(outputs, golden, self._tolerances)
        wrong = np.flatnonzero(~agreement.rows)
        if len(wrong):
            raise SelfTestFailed(self._failure(outputs, golden, rows, wrong, how))
        for name, furthest in agreement.furthest.items():
            self._furthest[name] = max(self._furthest.get(name, 0.0), furthest)

    def differences(self) -> Tuple[OutputDifference, ...]:
        """The largest difference of each output that was compared as numbers."""
        furthest = ((name, far, self._tolerances[name]) for name, far in self._furthest.items())
        return tuple(OutputDifference(name, far, allowed.atol, allowed.rtol) for name, far, allowed in furthest)

    def _failure(self, outputs: Arrays, golden: Arrays, rows: Sequence[int], wrong: NDArray[np.int64], how: str) -> str:
        task, i = self._package.task, int(wrong[0])
        name, value, answer = task.outputs.difference(outputs, golden, i)
        allowed = self._tolerances[name]
        sample = task.inputs.noun[:-1]
        return (
            f"golden {sample} {rows[i]} differs{how} ({len(wrong)} of {len(rows)} do): {value} within atol "
            f"{allowed.atol:g} + rtol {allowed.rtol:g}{f'; {answer}' if answer else ''}. "
            + (DEPENDS if how else "Try another onnxruntime version; do not deploy on this machine until it passes")
        )


def _asked(predictor: Predictor, given: object) -> Dict[str, Array]:
    return predictor.run(predictor.read(given))
