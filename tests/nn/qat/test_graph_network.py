"""The graph in torch with its fake quantizers is the graph that is written, and stays so as it learns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch.nn import functional as F

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.integers import setting_for
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.qat.checks import WRITTEN_DB, check_float, check_written
from dlx_deploy.nn.qat.front import front_of
from dlx_deploy.nn.qat.graph_network import GraphNetwork
from dlx_deploy.nn.qat.learned import Learning, learned_model, learned_plan
from dlx_deploy.targets.kernels import IntegerKernels

from ...onnx_fixtures import Net, images, residual_net, token_net

STYLES: list[dict[str, Any]] = [
    {"style": "tensorrt"},
    {"style": "tensorrt", "half": True},
    {"style": "cpu"},
    {"style": "cpu", "reduce_range": True},
    {"style": "tensorrt", "half": True, "weight_bits": 4, "activation_bits": 4},
    {"style": "cpu", "weight_bits": 4, "activation_bits": 4},
]


def learning_of(model: ModelProto, samples: Samples, **request: Any) -> Learning:
    setting = setting_for(model, samples, QuantizationRequest(**request))
    ranges = setting.measured(model, "minmax")
    return Learning(model, setting, setting.planned(model, ranges, "minmax"))


def taught(learning: Learning, inputs: torch.Tensor, steps: int = 12, rate: float = 0.02) -> GraphNetwork:
    network = learning.network().train()
    project = learning.projected(network)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    labels = torch.arange(len(inputs)) % 3
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(network.preprocessed(inputs)), labels).backward()
        optimizer.step()
        project(network, step)
    return network


@pytest.mark.parametrize("request_", STYLES, ids=str)
@pytest.mark.parametrize("shortcut", ["identity", "conv"])
def test_what_is_written_answers_as_what_was_trained(request_: dict[str, Any], shortcut: str) -> None:
    model, samples = residual_net(shortcut, opset=20), Samples({"images": images(32)})
    learning = learning_of(model, samples, **request_)
    check_float(learning, samples, 0)
    network = taught(learning, torch.from_numpy(images(32)))
    plan, learned = learned_plan(learning, network), learned_model(model, network)
    agreement, sqnr_db = check_written(learning.written(learned, plan), network, samples, request_["style"] != "cpu")
    assert agreement == 1
    assert sqnr_db > 100  # integers are summed, so all that is left is float32's last bit
    scales = {name: entry.scale for name, entry in plan.tensors.items() if not entry.like}
    assert scales != {name: learning.plan.tensors[name].scale for name in scales}
    assert {entry.source for entry in plan.tensors.values() if not entry.like} == {"lsq"}
    assert [entry.zero_point for entry in plan.tensors.values()] == [
        entry.zero_point for entry in learning.plan.tensors.values()
    ]
    first = Index(model).array("conv1.weight")
    assert not np.array_equal(Index(learned).array("conv1.weight"), first)


def test_gates_on_integers_learn_as_they_are_written() -> None:
    net = Net(opset=20)
    x = net.add("swish", "HardSwish", net.conv("a", net.planes(), 1, 8))
    net.add("gate", "HardSigmoid", net.conv("excite", net.add("mean", "GlobalAveragePool", x), 8, 8, kernel=1))
    model = net.head(net.conv("b", net.add("scaled_x", "Mul", "gate", x), 8, 8), 8)
    samples = Samples({"images": images(32)})
    kernels = IntegerKernels(operators=frozenset(("HardSigmoid", "HardSwish", "Mul")))
    learning = learning_of(model, samples, style="cpu", kernels=kernels)
    assert learning.setting.placement.gates == ("swish/HardSwish", "gate/HardSigmoid")
    network = taught(learning, torch.from_numpy(images(32)))
    plan, learned = learned_plan(learning, network), learned_model(model, network)
    agreement, sqnr_db = check_written(learning.written(learned, plan), network, samples, exact=True)
    assert agreement == 1
    assert sqnr_db > 100  # 53 where torch does not round the gates


def test_a_graph_with_other_scales_or_weights_is_refused() -> None:
    model, samples = residual_net(opset=20), Samples({"images": images(32)})
    learning = learning_of(model, samples, style="tensorrt")
    network = taught(learning, torch.from_numpy(images(32)), rate=0.2)
    learned = learned_model(model, network)
    for stale in (learning.written(learned, learning.plan), learning.written(model, learned_plan(learning, network))):
        with pytest.raises(
            StageFailed, match=rf"is not the network that was trained: .* rule: at least {WRITTEN_DB:.0f} dB"
        ):
            check_written(stale, network, samples, exact=True)


def test_a_graph_that_torch_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dlx_deploy.nn.qat import operators

    model, samples = residual_net(opset=20), Samples({"images": images(8)})
    learning = learning_of(model, samples, style="tensorrt")
    wrong = {**operators.OPERATORS, "Relu": lambda at, given: F.leaky_relu(given[0], 0.05)}
    monkeypatch.setattr("dlx_deploy.nn.qat.graph_network.OPERATORS", wrong)
    with pytest.raises(StageFailed, match=r"answers otherwise than in ONNX Runtime \(\d+\.\d dB\); rule: at least 60"):
        check_float(learning, samples, 0)


def test_training_sees_what_evaluation_sees() -> None:
    model, inputs = residual_net(opset=20), torch.from_numpy(images(32))
    for request in STYLES:
        network = learning_of(model, Samples({"images": images(32)}), **request).network()
        with torch.no_grad():
            summed, floating = network.eval()(inputs), network.train()(inputs)
        noise = float((summed - floating).square().sum() / summed.square().sum())
        assert noise < 1e-3


def test_zeros_among_weights_stay() -> None:
    model = residual_net(opset=20)
    index = Index(model)
    values = index.array("conv2.weight").copy()
    values.reshape(-1)[::2] = 0
    index.initializers["conv2.weight"].CopyFrom(onnx.numpy_helper.from_array(values, "conv2.weight"))
    learning = learning_of(model, Samples({"images": images(32)}), style="cpu")
    learned = Index(learned_model(model, taught(learning, torch.from_numpy(images(32))))).array("conv2.weight")
    assert not learned[values == 0].any()
    assert not np.array_equal(learned, values)


def test_a_copy_learns_by_itself() -> None:
    learning = learning_of(residual_net(opset=20), Samples({"images": images(32)}), style="tensorrt")
    network, inputs = learning.network().eval(), torch.from_numpy(images(4))
    other = copy.deepcopy(network)
    with torch.no_grad():
        for quantizer in other.quantizers:
            quantizer.ratio.mul_(3)  # type: ignore[union-attr, operator]
        assert not torch.equal(network(inputs), other(inputs))
        assert torch.equal(network(inputs), learning.network().eval()(inputs))


def test_what_learns_are_weights_and_scales() -> None:
    learning = learning_of(residual_net(opset=20), Samples({"images": images(32)}), style="tensorrt")
    network = learning.network()
    convolutions = [f"{name}.{part}" for name in ("conv1", "conv2", "conv3", "fc") for part in ("bias", "weight")]
    assert [name for name, _ in network.arrays()] == convolutions  # normalisation before the network is none
    own = learning.setting.placement.own
    assert len(list(network.quantizers)) == len(own) + 4
    assert all(network.quantizer("tensor", name) is not None for name in own)
    assert network.quantizer("tensor", "logits") is None


def test_the_front_is_what_no_module_made() -> None:
    model = residual_net(opset=20)
    assert front_of(model).tensors == ("images",)
    for node in model.graph.node[:4]:
        node.name = f"preprocess/{node.op_type}"
    front = front_of(model)
    assert front.tensors == ("images", "float", "planes", "scaled", "x")
    shapes = {name: tuple(values.shape) for name, values in front.values(torch.zeros(2, 1, 8, 8)).items()}
    assert shapes["float"] == (2, 8, 8, 1)
    assert shapes["planes"] == shapes["x"] == (2, 1, 8, 8)
    network, stored = GraphNetwork(model).eval(), torch.from_numpy(images(4))
    read = network.preprocessed(stored)
    torch.testing.assert_close(read, stored.permute(0, 3, 1, 2) / 128 - 1)
    with torch.no_grad():
        torch.testing.assert_close(network(read), GraphNetwork(residual_net(opset=20)).eval()(stored))


def test_tokens_are_filled_up_to_the_length_that_the_graph_takes() -> None:
    model = token_net()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 6
    network = GraphNetwork(model, padding=8).eval()
    short = torch.tensor([[1, 2, 3]])
    whole = torch.tensor([[1, 2, 3, 8, 8, 8]])
    assert torch.equal(network(short), network(whole))
    assert [name for name, _ in network.arrays()] == ["bias", "head", "mix", "table"]


def dense_net() -> ModelProto:
    """A value for each of three classes in each pixel, from two resolutions."""
    net = Net(opset=20)
    whole = net.add("relu1", "Relu", net.conv("conv1", net.planes(), 1, 4))
    half = net.add(
        "relu2", "Relu", net.conv("conv2", net.add("less", "MaxPool", whole, kernel_shape=[2, 2], strides=[2, 2]), 4, 4)
    )
    net.constant("twice", np.array([1, 1, 2, 2], np.float32))
    back = net.add("more", "Resize", half, "", "twice", mode="linear")
    net.conv("logits", net.add("both", "Concat", whole, back, axis=1), 8, 3)
    return net.model(3, (8, 8))


@pytest.mark.parametrize("request_", STYLES, ids=str)
@pytest.mark.parametrize("kind", ["pixels", "tokens"])
def test_answers_for_pixels_and_texts(request_: dict[str, Any], kind: str) -> None:
    tokens = np.random.default_rng(0).integers(0, 8, (32, 6), dtype=np.int32)
    tokens[:, 5] = 8
    model, samples = {
        "pixels": (dense_net(), Samples({"images": images(32)})),
        "tokens": (token_net(), Samples({"tokens": tokens}, {"tokens": 8})),
    }[kind]
    learning = learning_of(model, samples, **request_)
    check_float(learning, samples, 8)
    network = learning.network(8)
    for quantizer in network.quantizers:
        quantizer.ratio.data *= 1.1  # type: ignore[operator, union-attr]
    with torch.no_grad():
        for parameter in network.learned.values():
            parameter *= 0.9
    written = learning.written(learned_model(model, network), learned_plan(learning, network))
    _, sqnr_db = check_written(written, network, samples, request_["style"] != "cpu")
    assert sqnr_db > 60


def test_a_tensor_that_only_some_nodes_read_rounded() -> None:
    net = Net(opset=20)
    x = net.planes()
    net.conv("conv", x, 1, 4)
    net.add("twice", "Add", x, x)
    net.weight("wide", 4, 1, 1, 1)
    net.add("other", "Conv", "twice", "wide")
    model = net.head(net.add("sum", "Add", "conv", "other"), 4)
    samples = Samples({"images": images(16)})
    learning = learning_of(model, samples, style="tensorrt")
    assert learning.setting.placement.pairs["x"].readers == ("conv/Conv",)
    network = learning.network().eval()
    assert network.reads_rounded("x", "conv/Conv")
    assert not network.reads_rounded("x", "twice/Add")
    _, sqnr_db = check_written(learning.written(model, learning.plan), network, samples, exact=True)
    assert sqnr_db > 100
