"""Weights that are computed at every forward pass reach the graph as constants, under the names of their layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.passes.fold import constants_of, fold_weights
from dlx_deploy.graph.quantization.layers import layer_precision
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.export.bake import baked
from dlx_deploy.nn.export.network import export_onnx

from ...arrays import check_parity, image_spec, quantize_model
from ...onnx_fixtures import Net, images, op_types

SPEC = image_spec(8, 8, 1, (0.3,), (0.4,), 17)
Way = Callable[[nn.Module], nn.Module]


class Bounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh() * 0.3


def own(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Bounded())
    return layer


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.3)
    return layer


WAYS: dict[str, Way] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": own,
    "pruned": pruned,
    "old_spectral_norm": torch.nn.utils.spectral_norm,
}


def network(way: Way) -> nn.Module:
    first, second = way(nn.Conv2d(1, 4, 3)), way(nn.Conv2d(4, 40, 3))
    stem = (first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(40), nn.ReLU())
    model = nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 3))
    model(torch.randn(4, 1, 8, 8))  # running statistics, and weights with a gradient's history
    return model.eval()


@pytest.mark.parametrize("name", WAYS)
def test_a_copy_has_plain_weights_and_answers_the_same(name: str) -> None:
    model, x = network(WAYS[name]), torch.randn(3, 1, 8, 8)
    before, state = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    copy = baked(model)
    assert {"0.weight", "3.weight"} <= {key for key, _ in copy.named_parameters()}
    assert len(list(copy.parameters())) == 10
    torch.testing.assert_close(copy(x), before)
    torch.testing.assert_close(model(x), before)  # the original is as it was
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_the_older_weight_norm() -> None:
    model, x = network(torch.nn.utils.weight_norm), torch.randn(3, 1, 8, 8)
    copy = baked(model)
    assert "3.weight" in dict(copy.named_parameters())
    torch.testing.assert_close(copy(x), model(x))


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019): no parametrization says what is computed."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, centred / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


@pytest.mark.parametrize("kind", ["weight_norm", "standardised"])
def test_layers_keep_their_names_and_their_int8(kind: str, tmp_path: Path) -> None:
    model = network(WAYS["weight_norm"]) if kind == "weight_norm" else network(lambda layer: layer)
    if kind == "standardised":
        model[3] = Standardised(4, 300, 3)  # larger than what the exporter folds
        model[4], model[8] = nn.BatchNorm2d(300).eval(), nn.Linear(300, 3)
    export_onnx(model, tmp_path / "m.onnx", SPEC)
    check_parity(tmp_path / "m.onnx", model, SPEC, images(8), 1e-3)
    report = quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", images(8), QuantizationRequest("tensorrt"))
    assert report.layers == {"0/Conv": "int8", "3/Conv": "int8", "8/Gemm": "int8"}
    assert "BatchNormalization" not in op_types(load(tmp_path / "m.onnx"))


def computed_net(random: bool = False) -> Net:
    """A convolution whose weights are twice an initializer, or random."""
    net = Net()
    net.conv("a", net.planes(), 1, 4)
    if random:
        net.add("w", "RandomNormalLike", "b.raw")
    else:
        net.add("w", "Add", "b.raw", "b.raw")
    net.weight("b.raw", 4, 4, 3, 3)
    net.add("b", "Conv", "a", "w", pads=[1] * 4)
    return net


def test_a_computed_weight_is_folded_and_what_computed_it_goes() -> None:
    model = computed_net().head("b", 4)
    assert layer_precision(model)["b/Conv"] == "fp32"  # listed, though its weights are no initializer
    folded = fold_weights(model)
    assert "w/Add" not in [n.name for n in folded.graph.node]
    index = Index(folded)
    weight = next(n for n in folded.graph.node if n.name == "b/Conv").input[1]
    assert (index.array(weight) == 2 * numpy_helper.to_array(Index(model).initializers["b.raw"])).all()
    assert fold_weights(folded) is folded


def test_what_is_random_or_depends_on_the_input_is_left_alone() -> None:
    model = computed_net(random=True).head("b", 4)
    assert constants_of(model) == set()
    assert fold_weights(model) is model
    assert layer_precision(model)["b/Conv"] == "fp32"


def test_a_half_precision_weight_behind_a_node_is_listed_as_such() -> None:
    model = computed_net().head("b", 4)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), tensor.name))
    model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("to", TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert set(layer_precision(model).values()) == {"fp16"}
