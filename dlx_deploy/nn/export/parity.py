"""Whether an exported graph answers as its network does, on real inputs, and each row whoever its neighbours are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.checks.rows import BLAMED, MOST, ODD, Dependence, dependence, refuse_dependent_rows, unlike
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.execution.memory import peak_row_bytes, rows_within
from dlx_deploy.graph.model import load
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.nn.export.rows import blame, first_apart, first_beyond, mixes_in_double
from dlx_deploy.nn.export.spec import Spec, named_outputs
from dlx_deploy.nn.export.tolerances import ROUNDING, ROWS_SHARE
from dlx_deploy.nn.models.copies import copied, doubled
from dlx_deploy.runtime.tasks.arrays import Tensor, block_rows

__all__ = ["ParityReport", "check_parity"]

BATCH = 64
OF_ROUNDING = 0.1
"""Of what ONNX Runtime and torch differ by: what rounding must move by itself to be the cause."""
LARGEST = 1e7
"""Of any output: a package's tolerances, a twentieth of it in INT8, end at 1e6."""
HALF = float(np.finfo(np.float16).max)
TINY = float(np.finfo(np.float32).tiny)
UNSETTLED = (
    "its weights, or its batch normalisation's statistics, are far from those of its data: train it longer (epochs), "
    "or with a lower learning rate"
)


@dataclass(frozen=True)
class ParityReport:
    """How far ONNX Runtime is from torch in ``output``, of all outputs the one that is furthest.

    ``relative`` is ``max_abs_diff`` over the largest value of that output in torch. ``vacuous``: the outputs that are
    the same for every sample, so that agreement says nothing about the graph.
    """

    output: str
    max_abs_diff: float
    relative: float
    samples: int
    vacuous: tuple[str, ...]


@dataclass
class _Comparison:
    """What is known of one output after some blocks of rows; nothing of them is kept."""

    apart: float = 0.0
    largest: float = 0.0
    rows: int = 0
    ends: list[NDArray[np.float32]] = field(default_factory=list)
    """Of each value in a row the smallest and the largest that torch gave."""

    def add(self, answers: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        self.apart = max(self.apart, float(np.abs(answers - expected).max()))
        self.largest = max(self.largest, float(np.abs(expected).max()))
        low, high = [expected.min(axis=0), *self.ends[:1]], [expected.max(axis=0), *self.ends[1:]]
        self.ends = [np.min(low, axis=0), np.max(high, axis=0)]
        self.rows += len(expected)

    @property
    def relative(self) -> float:
        return self.apart / self.largest if self.largest else self.apart

    @property
    def vacuous(self) -> bool:
        low, high = self.ends
        return not ((high - low).any() if self.rows > 1 else np.ptp(high))


def check_parity(path: Path, model: nn.Module, spec: Spec, samples: Samples, tolerance: float) -> ParityReport:
    """How the file in ``path`` differs from ``model`` on ``samples``.

    Each row must get the same answer alone, in a batch and in another order, in torch and in ONNX Runtime alike.

    Raises:
        StageFailed: a value is not finite, the relative difference of an output is above ``tolerance``, or an answer
            depends on the batch; names the module or node that makes it so.
    """
    network, rows_tolerance = copied(model).float().cpu().eval(), max(tolerance * ROWS_SHARE, ROUNDING)
    block = min(_rows_at_a_time(spec, len(samples)), max(ODD, rows_within(peak_row_bytes(load(path)), BATCH)))
    compared = _compared(path, network, spec, samples, block)
    _refuse_enormous(network, spec, samples, path.name, compared)
    rows = unlike(samples[: max(BLAMED, min(MOST, block))])
    rounding = _rounding(network, spec, rows, rows_tolerance)
    _refuse_rounding(network, spec, rows, rounding, tolerance)
    name = max(compared, key=lambda name: compared[name].relative)
    furthest = compared[name]
    if furthest.relative > tolerance:
        cause = _own_rounding(network, spec, samples, name, furthest)
        raise StageFailed(
            f"{path.name}: ONNX Runtime and torch differ by {furthest.relative:.2e} of the largest of the "
            f"{name} ({furthest.apart:.2e}) on {len(samples)} {' and '.join(spec.inputs)}; "
            f"rule: at most {tolerance:.2e} (export.parity_tolerance){cause}"
        )
    refuse_dependent_rows(path, rows, False, tolerance if rounding else rows_tolerance)
    vacuous = tuple(name for name, output in compared.items() if output.vacuous)
    return ParityReport(name, furthest.apart, furthest.relative, len(samples), vacuous)


def _rows_at_a_time(spec: Spec, most: int) -> int:
    """Dense outputs are megabytes a row."""
    outputs = spec.outputs.items()
    tensors = [Tensor(name, "float32", tuple("any" if n is None else n for n in dims)) for name, dims in outputs]
    return block_rows(tensors, most)


def _compared(path: Path, network: nn.Module, spec: Spec, samples: Samples, block: int) -> dict[str, _Comparison]:
    """Output name → how it compares, ``block`` samples at a time."""
    compared = {name: _Comparison() for name in spec.outputs}
    for part in samples.batches(block, fill=False):
        expected = _torch_outputs(network, spec, part, spec.fixed or BATCH)
        answers = run_onnx(path, part, exact_qdq=False, batch=BATCH)
        for name, output in compared.items():
            if not (np.isfinite(expected[name]).all() and np.isfinite(answers[name]).all()):
                rows = np.isfinite(expected[name]).reshape(len(part), -1).all(axis=1)
                odd = 0 if spec.fixed else int(rows.argmin())
                where = first_beyond(network, spec.read(spec.trimmed(part[odd : odd + (spec.fixed or 1)])))
                raise StageFailed(
                    f"{path.name}: {name} are not finite (NaN or infinite)"
                    f"{f'; the first to be so: {where}' if where else ''}; train with a lower learning rate"
                )
            output.add(answers[name], expected[name])
    return compared


def _refuse_enormous(
    network: nn.Module, spec: Spec, samples: Samples, graph: str, compared: Mapping[str, _Comparison]
) -> None:
    """Nothing, if no answer is so large that nothing can be said of it in half precision, nor in a package."""
    name = max(compared, key=lambda name: compared[name].largest)
    if (largest := compared[name].largest) <= LARGEST:
        return
    where = first_beyond(network, spec.read(spec.trimmed(samples[: spec.fixed or BLAMED])), HALF)
    first = f"; the first to pass {HALF:g}, where half precision ends: {where}" if where else ""
    raise StageFailed(f"{graph}: {name} of up to {largest:.2g}{first}; rule: at most {LARGEST:g}; {UNSETTLED}")


def _rounding(network: nn.Module, spec: Spec, samples: Samples, tolerance: float) -> Dependence | None:
    """How a row's answer differs by rounding alone, if by more than ``tolerance``.

    Raises:
        StageFailed: torch does not answer a row alike alone, in any order and at any padding that the exported graph
            meets, and in float64 neither.
    """

    def ask(asked: nn.Module, tolerance: float) -> Dependence | None:
        def run(rows: Samples, batch: int) -> Arrays:
            return _torch_outputs(asked, spec, rows, batch)

        return dependence(run, samples, run(samples, spec.fixed or BATCH), tolerance, spec.fixed)

    depends = ask(network, tolerance)
    if depends and mixes_in_double(network, depends, ask):
        culprit = blame(network, spec.read(samples[:BLAMED]), tolerance)
        raise StageFailed(
            f"the network's answers depend on the batch: {depends}; {culprit}; rule: a row's answer is its own, "
            f"whoever its neighbours are{spec.advice}"
        )
    return depends


def _refuse_rounding(network: nn.Module, spec: Spec, samples: Samples, seen: Dependence | None, most: float) -> None:
    """Nothing, if rounding moves no answer by more than parity allows: no device would give the same ones."""
    if seen is None or seen.relative <= most:
        return
    where = first_apart(network, spec.read(samples[:BLAMED]), most)
    raise StageFailed(
        f"rounding in float32 alone changes the network's answers: {seen}, and in float64 none does"
        f"{f'; the first to change: {where}' if where else ''}; rule: at most {most:.2e} (export.parity_tolerance); "
        f"{UNSETTLED}"
    )


def _own_rounding(network: nn.Module, spec: Spec, samples: Samples, name: str, apart: _Comparison) -> str:
    """What is to be said where torch's own answers move nearly as far in float64 as ONNX Runtime's are ``apart``."""
    try:
        single, double = (
            _torch_outputs(one, spec, samples[:BATCH], BATCH)[name] for one in (network, doubled(network))
        )
    except StageFailed:  # a network that makes float32 numbers itself
        return ""
    moved = float(np.abs(single - double).max()) / max(float(np.abs(double).max()), TINY)
    if not moved > apart.relative * OF_ROUNDING:
        return ""
    return (
        f"; rounding alone is to blame: torch's own answers in float32 and float64 are {moved:.2e} apart; {UNSETTLED}"
    )


def _torch_outputs(network: nn.Module, spec: Spec, samples: Samples, batch: int) -> Arrays:
    """What the untraced ``network`` gives, with the preprocessing written the plain way, ``batch`` at a time."""
    parts = []
    for part in samples.batches(batch, fill=spec.fixed is not None):
        try:
            with torch.inference_mode():
                parts.append(named_outputs(network(*spec.read(spec.trimmed(part))), spec.outputs))
        except Exception as e:  # a network's forward may raise anything
            raise StageFailed(
                f"the network takes other batches, and for one of {len(part)} it raises {type(e).__name__}: {e}; "
                "rule: a device asks for any number of answers at a time; or set export.batch to a number"
            ) from e
    return {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in spec.outputs}
