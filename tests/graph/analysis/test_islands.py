from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from dlx_deploy.graph.analysis.islands import island_costs, island_words, islands
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.targets.kernels import NOT_MEASURED, IntegerKernels, integer_kernels

from ...onnx_fixtures import Net, images, residual_net


def gated_net() -> ModelProto:
    net = Net(opset=20)
    x = net.add("swish", "HardSwish", net.conv("a", net.planes(), 1, 8))
    y = net.conv("b", x, 8, 8)
    net.add("silu", "Mul", y, net.add("sigmoid", "Sigmoid", y))
    return net.head(net.conv("c", "silu", 8, 8), 8)


def written(model: ModelProto, folder: Path, kernels: IntegerKernels) -> Path:
    (folder / "fp32.onnx").write_bytes(to_bytes(model))
    request = QuantizationRequest("cpu", kernels=kernels)
    quantize_model(folder / "fp32.onnx", folder / "int8.onnx", Samples({"images": images(8)}), request)
    return folder / "int8.onnx"


@pytest.mark.parametrize(
    ("kernels", "words"),
    [(NOT_MEASURED, "1 HardSwish, 1 Sigmoid and 1 Mul"), (integer_kernels("avx2"), "")],
    ids=["not measured", "avx2"],
)
def test_what_is_computed_in_floating_point_between_integers(
    kernels: IntegerKernels, words: str, tmp_path: Path
) -> None:
    assert island_words(written(gated_net(), tmp_path, kernels)) == words


def test_what_comes_before_the_first_layer_and_after_the_last_is_none(tmp_path: Path) -> None:
    assert island_words(written(residual_net(), tmp_path, NOT_MEASURED)) == ""
    assert islands(residual_net()) == []


def test_an_island_costs_passes_over_memory(tmp_path: Path) -> None:
    """HardSwish reads and writes float32[8, 8, 8], between what makes that of uint8 and uint8 of that."""
    costs = {cost.op: cost for cost in island_costs(written(gated_net(), tmp_path, NOT_MEASURED)) if cost.op in _SWISH}
    swish = next(c for c in island_costs(tmp_path / "int8.onnx") if c.op == "HardSwish")
    assert (swish.input_bytes, swish.output_bytes, swish.memory_bound) == (4 * 512, 4 * 512, True)
    assert (costs["DequantizeLinear"].input_bytes, costs["DequantizeLinear"].output_bytes) == (512, 4 * 512)
    assert (costs["QuantizeLinear"].input_bytes, costs["QuantizeLinear"].output_bytes) == (4 * 512, 512)
    assert island_costs(written(gated_net(), tmp_path, integer_kernels("avx2"))) == []


_SWISH = ("DequantizeLinear", "HardSwish", "QuantizeLinear")
