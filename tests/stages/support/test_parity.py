"""The bounds that a package says are kept by honest arithmetic, and not by a graph that computes something else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dlx_deploy.graph.checks.spread import bent
from dlx_deploy.graph.execution import evaluation
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.quantization.scheme import TENSORRT
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.runtime.backends.exact import exact_model
from dlx_deploy.runtime.commands.parity import noise_db
from dlx_deploy.runtime.package.parity import ParityBounds, ParityTable, parity_fields, parity_members
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.stages.support import parity

from ...arrays import run_onnx, samples
from ...onnx_fixtures import images, residual_net, with_qdq

DEVICE = image_classification(Framing(8, 8, 1), [str(k) for k in range(10)])
INT8 = {"precision": "int8", "elsewhere": "fp16"}


def quantized() -> bytes:
    return to_bytes(with_qdq(residual_net(), TENSORRT))


def made(model: bytes, exact: bool = True, recipe: Any = INT8, threads: int = 1) -> ParityTable:
    outputs = {"logits": run_onnx(model, images(), exact_qdq=exact)}
    kept = parity.kept_answers(outputs, {parity.CHOSEN: np.ones(len(images()), np.bool_)}, DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "parity.npz")
        parity.write_answers(path, samples(images()), DEVICE, kept)
        table = parity.make_parity(path, parity.Judge(model, samples(images()), exact, threads), DEVICE, recipe)
    assert table is not None
    return table


def noise_of(model: bytes, table: ParityTable, exact: bool = True) -> tuple[float, float]:
    apart = run_onnx(model, images(), exact_qdq=exact).astype(np.float64) - table.answers["logits"]
    return noise_db((apart**2).sum(axis=1).tolist(), table.answers["logits"])


def keeps(seen: tuple[float, float], bounds: ParityBounds | None) -> bool:
    assert bounds is not None
    return seen[0] >= bounds.sqnr_db and seen[1] >= bounds.worst_db


def test_honest_arithmetic_keeps_the_bounds_and_another_graph_does_not() -> None:
    model = quantized()
    table, twin = made(model), exact_model(model)
    assert keeps(noise_of(model, table), table.exact)
    assert keeps(noise_of(bent(twin, 2.0**-20), table), table.exact)
    assert keeps(noise_of(bent(twin, -(2.0**-8)), table), table.other)
    other = onnx.load_model_from_string(model)
    weights = next(one for one in other.graph.initializer if len(one.dims) == 4 and one.dims[1] > 1)
    filters = numpy_helper.to_array(weights).copy()
    filters[[0, 1]] = filters[[1, 0]]
    weights.CopyFrom(numpy_helper.from_array(filters, weights.name))
    swapped = noise_of(to_bytes(other), table)
    assert not keeps(swapped, table.exact)
    assert not keeps(swapped, table.other)


def test_bounds_are_the_constants_where_a_model_is_steady_and_wider_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(parity.ENGINE_BENDS, "int8", 2.0**-16)
    table = made(quantized())
    assert (table.other, table.exact) == (ParityBounds(26, 18, 0.02), ParityBounds(50, 42, 0.005))
    monkeypatch.setitem(parity.ENGINE_BENDS, "int8", 2.0**-9)  # as if honest arithmetic were that far off
    wide = made(quantized()).other
    assert parity.LEAST_DB < wide.sqnr_db < 26
    assert wide.worst_db < 18
    monkeypatch.setitem(parity.ENGINE_BENDS, "int8", 2.0)
    chaos = made(quantized()).other
    assert chaos.sqnr_db == parity.LEAST_DB
    assert 0.02 <= chaos.differing <= parity.MOST_DIFFERING


def test_bounds_are_the_same_for_any_number_of_threads_and_batches_run_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, used = evaluation.run_in_batches, []

    def ran(
        model: bytes, given: Samples, exact: bool, batch: int, threads: int = 0, shrink: bool = True
    ) -> Iterator[Arrays]:
        used.append(threads)
        return own(model, given, exact, batch, threads, shrink)

    monkeypatch.setattr(evaluation, "run_in_batches", ran)
    monkeypatch.setattr(evaluation, "BATCH", 8)
    alone, together = (made(quantized(), threads=threads) for threads in (1, 4))
    assert used == [0, 1, 1, 0, 4, 4]  # those of evaluate, and the bent ones
    assert parity_members(alone) == parity_members(together)
    assert parity_fields(alone) == parity_fields(together)


@pytest.mark.parametrize(
    ("recipe", "decibels"),
    [(INT8, 20), ({"precision": "fp32", "elsewhere": "fp16"}, 40), ({"precision": "fp32", "elsewhere": "fp32"}, 60)],
)
def test_kernels_that_are_not_exact_have_one_bound(recipe: Any, decibels: float) -> None:
    table = made(to_bytes(residual_net()), exact=False, recipe=recipe)
    assert (table.other.sqnr_db, table.exact) == (decibels, None)
