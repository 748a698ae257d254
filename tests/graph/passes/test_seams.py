from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.passes.seams import divided, seams

from ...arrays import run_onnx
from ...onnx_fixtures import Net, images


def chain(second: str = "Conv", between: str = "Relu", group: int = 1, **changes: Any) -> ModelProto:
    """a → between → b → head."""
    net = Net()
    middle = net.conv("a", net.planes(), 1, 8)
    if between:
        middle = net.add("act", between, middle)
    if changes.get("also_read"):
        net.add("other", "Sigmoid", middle)
    if second == "Conv":
        x = net.conv("b", middle, 8, 8, group=group)
        if changes.get("shared"):
            x = net.add("c", "Conv", x, "b.weight", pads=[1] * 4, group=group)
        if changes.get("also_read"):
            x = net.add("sum", "Add", x, "other")
        return net.head(x, 8)
    return net.head(middle, 8)


def factors(count: int = 8) -> NDArray[np.float32]:
    return np.exp2(np.arange(count) - 3).astype(np.float32)


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", ""])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_the_function_stays(between: str, group: int) -> None:
    model = chain(between=between, group=group)
    (seam,) = seams(model)
    assert (seam.tensor, seam.channels) == ("act" if between else "a", 8)
    moved = divided(model, {seam.tensor: factors()})
    assert to_bytes(moved) != to_bytes(model)
    assert to_bytes(model) == to_bytes(chain(between=between, group=group))
    before, after = (run_onnx(to_bytes(one), images(6), exact_qdq=False) for one in (model, moved))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [chain(between="Sigmoid"), chain(between="Tanh"), chain(also_read=True), chain(shared=True), chain("")],
    ids=["sigmoid", "tanh", "read by others", "shared weights", "not a layer"],
)
def test_where_the_function_would_change_there_is_no_seam(model: ModelProto) -> None:
    assert "act" not in [seam.tensor for seam in seams(model)]


def test_an_output_of_the_graph_is_no_seam() -> None:
    model = chain()
    model.graph.output.add().name = "act"
    assert not seams(model)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_reads_channels_along_either_axis(transposed: int) -> None:
    net = Net()
    net.add("pooled", "GlobalAveragePool", net.planes())
    net.add("flat", "Flatten", "pooled", axis=1)
    net.constant("gain", np.ones(1, np.float32))
    net.add("n", "LayerNormalization", "flat", "gain")
    net.weight("w", *((10, 1) if transposed else (1, 10)))
    net.add("logits", "Gemm", "n", "w", transB=transposed)
    (seam,) = seams(net.model())
    assert (seam.tensor, seam.channels, dict(seam.makers)) == ("n", 1, {"gain": 0})
