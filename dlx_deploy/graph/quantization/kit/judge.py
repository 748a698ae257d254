"""How near the answers of a written graph are to those of the network, on inputs that no step has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from dlx_deploy.graph.execution.evaluation import run_in_batches, run_onnx
from dlx_deploy.graph.execution.memory import rows_within
from dlx_deploy.graph.model import infer, to_bytes
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.runtime.untyped import Array

__all__ = ["Judge", "Score"]

CAP_DB = 200.0
"""The same bits, or with a minus no signal at all."""
BATCH = 32
"""Inputs at a time; more leave the caches."""
ANSWER_BYTES = 256 << 20
"""Of the network's answers, which are kept."""


@dataclass(frozen=True)
class Score:
    """``sqnr_db``: the power of the network's answers over that of what differs, of several outputs the lowest.

    ``agreement``: the share of decisions (the largest along axis 1, in each place) that are the same; ``None`` where no
    output has two values there; ``decisions``: how many there are.
    """

    sqnr_db: float
    agreement: float | None
    decisions: int = 0


class Judge:
    """Knows the answers of ``model`` to ``held``, or to as many of these as there is memory for.

    ``exact``: Q/DQ are judged as they are written, and not with this host's kernels (``execution.evaluation``).
    """

    def __init__(self, model: ModelProto, held: Samples, exact: bool) -> None:
        self.held = held[: rows_within(_answer_bytes(model), len(held), ANSWER_BYTES)]
        self._exact = exact
        answers = run_onnx(to_bytes(model), self.held, exact_qdq=False)
        self._answers = {name: values for name, values in answers.items() if values.dtype.kind == "f"}

    @property
    def compares(self) -> bool:
        """Whether there is an answer whose noise can be told: integers have none."""
        return bool(self._answers)

    @property
    def decides(self) -> int | None:
        """How many different answers the network gives; ``None`` where it decides nothing."""
        decided = [np.unique(values.argmax(axis=1)).size for values in self._answers.values() if _decides(values)]
        return max(decided, default=None)

    def score(self, written: ModelProto) -> Score:
        """How near ``written`` comes."""
        noise = dict.fromkeys(self._answers, 0.0)
        same, asked, row = 0, 0, 0
        for part in run_in_batches(to_bytes(written), self.held, self._exact, BATCH, fused=True):
            for name, values in self._of(part).items():
                reference = self._answers[name][row : row + len(values)]
                noise[name] += float(np.square(reference.astype(np.float64) - values).sum())
                if _decides(reference):
                    equal = reference.argmax(axis=1) == values.argmax(axis=1)
                    same, asked = same + int(equal.sum()), asked + equal.size
            row += len(next(iter(part.values())))
        powers = {name: float(np.square(values.astype(np.float64)).sum()) for name, values in self._answers.items()}
        return Score(min(_db(powers[name], noise[name]) for name in noise), same / asked if asked else None, asked)

    def _of(self, part: Arrays) -> dict[str, Array]:
        return {name: part[name] for name in self._answers}


def _db(signal: float, noise: float) -> float:
    if not math.isfinite(noise) or signal <= 0:
        return -CAP_DB
    return min(10 * math.log10(signal / noise), CAP_DB) if noise else CAP_DB


def _decides(values: Array) -> bool:
    return bool(values.shape[1] > 1)


def _answer_bytes(model: ModelProto) -> int:
    shapes = infer(model, batch=1)
    return sum(4 * shapes[value.name].elements for value in model.graph.output if value.name in shapes)
