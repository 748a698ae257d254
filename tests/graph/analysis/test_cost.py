from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.analysis.cost import layer_costs, model_summary
from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.scheme import CPU, TENSORRT
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.targets.roofline import LayerCost

from ...arrays import image_spec
from ...onnx_fixtures import Net, exported, residual_net, trained, with_qdq

PIXELS = 64


def costs(model: ModelProto) -> dict[str, LayerCost]:
    return {cost.name: cost for cost in layer_costs(model)}


def int8(model: ModelProto, style: str) -> ModelProto:
    return with_qdq(model, TENSORRT if style == "tensorrt" else CPU, (-1.0, 1.0))


def test_a_residual_network_in_fused_layers() -> None:
    layers = layer_costs(residual_net())
    assert [(c.name, c.op, c.memory_bound) for c in layers] == [
        ("float/Cast", "Cast", True),
        ("conv1/Conv", "Conv", False),
        ("conv2/Conv", "Conv", False),
        ("conv3/Conv", "Conv", False),  # with the sum and the activation behind it
        ("pooled/GlobalAveragePool", "GlobalAveragePool", True),
        ("logits/Gemm", "Gemm", False),
    ]
    assert [c.macs for c in layers] == [0, PIXELS * 9 * 8, PIXELS * 9 * 64, PIXELS * 9 * 64, 0, 80]
    assert {c.dtype for c in layers} == {"fp32"}


def test_bytes_of_a_float_network() -> None:
    layers = costs(residual_net())
    plane = 8 * PIXELS * 4
    pre, conv1, conv3 = (layers[name] for name in ("float/Cast", "conv1/Conv", "conv3/Conv"))
    assert (pre.input_bytes, pre.output_bytes, pre.weight_bytes) == (PIXELS, 4 * PIXELS, 8)
    assert (conv1.input_bytes, conv1.output_bytes, conv1.weight_bytes) == (4 * PIXELS, plane, 4 * (72 + 8))
    assert (conv3.input_bytes, conv3.output_bytes) == (2 * plane, plane)  # the identity is read too
    assert layers["logits/Gemm"].weight_bytes == 4 * 90


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
@pytest.mark.parametrize("shortcut", ["identity", "conv"])
def test_an_int8_network_has_the_same_layers(style: str, shortcut: str) -> None:
    before, after = costs(residual_net(shortcut)), costs(int8(residual_net(shortcut), style))
    assert {name: c.macs for name, c in before.items()} == {name: c.macs for name, c in after.items()}
    heavy = [c for c in after.values() if c.macs]
    assert {c.dtype for c in heavy} == {"int8"}
    assert {c.dtype for c in after.values() if not c.macs} == {"fp32"}
    conv2 = after["conv2/Conv"]
    assert (conv2.input_bytes, conv2.output_bytes) == (8 * PIXELS, 8 * PIXELS)
    assert conv2.weight_bytes == 576 + 32  # the bias has four bytes in either style
    assert after["conv3/Conv"].input_bytes == 2 * 8 * PIXELS


def test_of_two_convolutions_the_larger_takes_the_sum() -> None:
    layers = costs(residual_net("conv"))
    assert layers["conv3/Conv"].input_bytes == 2 * layers["short/Conv"].input_bytes


def test_grouped_dilated_and_strided_convolutions() -> None:
    net = Net()
    wide = net.conv("wide", net.planes(), 1, 8, kernel=1)
    net.conv("depthwise", wide, 8, 8, group=8)
    net.conv("grouped", "depthwise", 8, 16, group=2)
    net.conv("strided", "grouped", 16, 8, strides=[2, 2], dilations=[2, 2])
    net.weight("up.weight", 8, 4, 2, 2)
    layers = costs(net.head(net.add("up", "ConvTranspose", "strided", "up.weight", strides=[2, 2]), 4))
    assert layers["depthwise/Conv"].macs == PIXELS * 9 * 8
    assert layers["depthwise/Conv"].memory_bound
    assert layers["grouped/Conv"].macs == PIXELS * 9 * 16 * 4
    assert not layers["grouped/Conv"].memory_bound
    assert layers["strided/Conv"].macs == 3 * 3 * 9 * 16 * 8  # 3 x 3 outputs: the dilated kernel spans 5 of 10
    assert layers["up/ConvTranspose"].macs == 3 * 3 * 8 * 4 * 4


def test_products_of_matrices() -> None:
    net = Net()
    x = net.conv("a", net.planes(), 1, 4)
    net.constant("shape", np.array([0, 4, 64]))
    rows = net.add("rows", "Reshape", x, "shape")
    scores = net.add("scores", "MatMul", rows, net.add("turned", "Transpose", rows, perm=[0, 2, 1]))
    net.weight("fc.weight", 4, 10)
    net.add("logits", "MatMul", net.add("mean", "ReduceMean", scores, axes=[1], keepdims=0), "fc.weight")
    layers = costs(net.model())
    assert layers["scores/MatMul"].macs == 4 * 4 * 64
    assert layers["scores/MatMul"].weight_bytes == 0
    assert layers["logits/MatMul"].macs == 40


def test_half_precision() -> None:
    net = Net()
    net.add("half", "Cast", net.planes(), to=TensorProto.FLOAT16)
    net.constant("w", np.ones((8, 1, 3, 3), np.float16))
    wide = net.add("conv", "Conv", "half", "w", pads=[1, 1, 1, 1])
    layers = costs(net.head(net.add("back", "Cast", wide, to=TensorProto.FLOAT), 8))
    conv = layers["conv/Conv"]
    assert (conv.dtype, conv.weight_bytes, conv.input_bytes) == ("fp16", 144, 2 * PIXELS)


def test_a_fixed_batch_is_counted_for_one_image() -> None:
    one, many = layer_costs(residual_net("conv")), layer_costs(residual_net("conv", batch=16))
    assert one == many


def test_macs_of_an_exported_network_are_those_of_its_layers() -> None:
    import torch
    from torch import nn

    model, expected = trained(), []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
        expected.append(out[0].numel() * layer.weight[0].numel())

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(torch.zeros(1, 1, 8, 8))
    for handle in handles:
        handle.remove()
    layers = [cost.macs for cost in layer_costs(exported()) if cost.macs]
    assert sorted(layers) == sorted(expected)
    assert len(layers) == 7


def test_a_summary(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(residual_net().SerializeToString())
    summary = model_summary(path)
    assert summary.macs == PIXELS * 9 * (8 + 64 + 64) + 80
    assert summary.parameters == (72 + 8) + 2 * (576 + 8) + 90 + 2  # the last two normalise
    assert summary.size_bytes == path.stat().st_size
    assert model_summary(residual_net()).size_bytes == path.stat().st_size


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_quantization_changes_no_count(style: str) -> None:
    before, after = model_summary(residual_net()), model_summary(int8(residual_net(), style))
    assert (after.macs, after.parameters) == (before.macs, before.parameters)


def test_a_shape_that_nobody_knows() -> None:
    model = load(residual_net())
    made = helper.make_node("Mystery", ["relu1"], ["strange"], domain="elsewhere", name="mystery")
    model.graph.node.insert(6, made)
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(StageFailed, match="shape of tensor 'strange' cannot be inferred"):
        layer_costs(model)


class Recurrent(torch.nn.Module):
    """Reads an image's rows one after the other."""

    def __init__(self, kind: type[torch.nn.RNNBase], layers: int, both: bool) -> None:
        super().__init__()
        self.cells = kind(8 * 3, 6, layers, batch_first=True, bidirectional=both)
        self.head = torch.nn.Linear(12 if both else 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.cells(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])
        return out


@pytest.mark.parametrize(
    ("kind", "gates", "layers", "both"), [("LSTM", 4, 1, False), ("LSTM", 4, 2, True), ("GRU", 3, 2, True)]
)
def test_a_recurrent_network_of_dynamic_batch(kind: str, gates: int, layers: int, both: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Recurrent(getattr(torch.nn, kind), layers, both).eval()
    export_onnx(model, tmp_path / "m.onnx", image_spec(8, 8, 3, (0.5,) * 3, (0.25,) * 3))
    costed = layer_costs(tmp_path / "m.onnx")
    assert [c.op for c in costed].count(kind) == layers
    directions = 2 if both else 1
    widths = [24, 6 * directions][:layers]
    macs = sum(8 * directions * gates * 6 * (width + 6) for width in widths)  # eight rows
    assert sum(c.macs for c in costed if c.op == kind) == macs
    assert model_summary(tmp_path / "m.onnx").macs == macs + 6 * directions * 5


def test_einsum_and_attention() -> None:
    def graph(op: str, out: list[int], inputs: dict[str, list[int]], **attributes: object) -> ModelProto:
        node = helper.make_node(op, list(inputs), ["y"], name="it", **attributes)
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()]
        made = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)])
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)])

    for equation, a, b, out, macs in (
        ("bij,bjk->bik", [1, 3, 4], [1, 4, 5], [1, 3, 5], 60),
        ("nchw,oc->nohw", [1, 4, 2, 2], [6, 4], [1, 6, 2, 2], 96),
        ("...ij,...jk->...ik", [1, 2, 3, 4], [1, 2, 4, 5], [1, 2, 3, 5], 120),
        ("ij,jk", [1, 4], [4, 5], [1, 5], 20),
    ):
        made = graph("Einsum", out, {"a": a, "b": b}, equation=equation)
        assert [c.macs for c in layer_costs(made)] == [macs], equation
    shape = [1, 2, 7, 4]  # batch, heads, length, width
    made = graph("Attention", shape, {"q": shape, "k": shape, "v": shape})
    assert [c.macs for c in layer_costs(made)] == [2 * 2 * 7 * 7 * 4]


def test_a_size_that_depends_on_content_is_named() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="where"),
        helper.make_node("Cast", ["where"], ["found"], name="found", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "found"], ["y"], name="it"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in ("x", "w")]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])
    model = helper.make_model(helper.make_graph(nodes, "g", values, [out]))
    with pytest.raises(StageFailed, match=r"tensor '(y|found)' has shape \[\d, -1\] for one sample, where -1"):
        layer_costs(model)
