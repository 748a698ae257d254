from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.planning import make_plan
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.rounding import nearest
from dlx_deploy.graph.quantization.scheme import CPU_REDUCED, TENSORRT, Scheme
from dlx_deploy.graph.quantization.writer import write_qdq

from ...onnx_fixtures import residual_net


def test_the_nearest_integer_and_of_two_the_even_one() -> None:
    weight = np.array([[-3.5, -0.5, 0.5, 1.5, 2.4, 9.0]], np.float32)
    steps = nearest("a/Conv", weight, np.ones((1, 1), np.float32), 4)
    assert (steps.dtype, steps.tolist()) == (np.int8, [[-4, 0, 0, 2, 2, 4]])


def written(scheme: Scheme, rounding) -> Index:  # type: ignore[no-untyped-def]
    model = residual_net()
    placement = place(model, scheme.placement, quantizable(Index(model), set()))
    ranges = Ranges(tensors={name: {"minmax": (-1.0, 1.0)} for name in placement.own})
    plan = make_plan(model, scheme, placement, ranges, QuantizationPlan(schema=1), "minmax")
    return Index(write_qdq(model, scheme, placement, plan, rounding))


@pytest.mark.parametrize(
    ("scheme", "stored", "levels"), [(TENSORRT, "/quantized", 127), (CPU_REDUCED, "_quantized", 64)]
)
def test_a_rounding_decides_the_integers_of_every_layer(scheme: Scheme, stored: str, levels: int) -> None:
    seen: dict[str, tuple[tuple[int, ...], int]] = {}

    def down(layer: str, weight: NDArray[np.float32], scale: NDArray[np.float32], levels: int) -> NDArray[np.int8]:
        seen[layer] = scale.shape, levels
        return np.floor(weight / scale).clip(-levels, levels).astype(np.int8)

    index = written(scheme, down)
    assert seen == {
        "conv1/Conv": ((8, 1, 1, 1), levels),
        "conv2/Conv": ((8, 1, 1, 1), levels),
        "conv3/Conv": ((8, 1, 1, 1), levels),
        "logits/Gemm": ((10, 1), levels),
    }
    ours, usual = (i.array(f"conv2.weight{stored}").astype(int) for i in (index, written(scheme, nearest)))
    assert set(np.unique(usual - ours)) == {0, 1}


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        (lambda steps: steps.astype(np.float32), r"float32\[8, 1, 3, 3\]"),
        (lambda steps: steps[:4], r"int8\[4, 1, 3, 3\]"),
        (lambda steps: np.full_like(steps, -128), r"int8\[8, 1, 3, 3\], -128 to -128"),
    ],
)
def test_a_rounding_that_gives_no_integers_of_the_weights(wrong, seen: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        StageFailed, match=rf"the rounding of 'conv1/Conv' gave {seen}.*; rule: int8\[8, 1, 3, 3\] from"
    ):
        written(TENSORRT, lambda *arguments: wrong(nearest(*arguments)))
