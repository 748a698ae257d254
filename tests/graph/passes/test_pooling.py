from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.pooling import POOL_GLOBALLY

from ...arrays import run_onnx
from ...onnx_fixtures import Net, images, op_types


def mean(axes: list[int], keepdims: int) -> ModelProto:
    net = Net(opset=18)
    x = net.conv("a", net.planes(), 1, 8)
    net.constant("axes", np.array(axes))
    x = net.add("mean", "ReduceMean", x, "axes", keepdims=keepdims)
    if keepdims:
        net.constant("flat.shape", np.array([0, -1]))
        x = net.add("flat", "Reshape", x, "flat.shape")
    net.weight("fc.weight", 10, 8)
    net.add("logits", "Gemm", x, "fc.weight", transB=1)
    return net.model()


@pytest.mark.parametrize(("axes", "keepdims", "made"), [
    ([2, 3], 1, ["GlobalAveragePool"]),
    ([-1, -2], 0, ["GlobalAveragePool", "Flatten"]),
])  # fmt: skip
def test_a_mean_over_height_and_width_is_pooling_and_computes_the_same(
    axes: list[int], keepdims: int, made: list[str]
) -> None:
    before = to_bytes(mean(axes, keepdims))
    model = run_passes(mean(axes, keepdims), [POOL_GLOBALLY], "net")
    onnx.checker.check_model(model, full_check=True)
    kinds = op_types(model)
    assert "ReduceMean" not in kinds
    assert kinds[kinds.index("Conv") + 1 :][: len(made)] == made
    answers: list[Any] = [run_onnx(source, images(4), exact_qdq=False) for source in (before, to_bytes(model))]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-6)


def test_a_mean_over_channels_stays() -> None:
    model = run_passes(mean([1, 2], 0), [POOL_GLOBALLY], "net")
    assert "ReduceMean" in op_types(model)
