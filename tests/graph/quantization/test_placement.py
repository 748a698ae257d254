from __future__ import annotations

from typing import Literal

import pytest
from onnx import ModelProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.graph.quantization.placement import Pair, Placement, Weights, narrowed, place

from ...onnx_fixtures import Net, residual_net


def placed(
    model: ModelProto,
    where: Literal["inputs", "kernels"],
    skipped: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Placement:
    return place(model, where, quantizable(Index(model), set(left_out)), skipped, left_out)


def test_what_layers_read_and_the_identity_of_a_sum() -> None:
    placement = placed(residual_net(), "inputs")
    assert placement.entries == (
        Pair("x", ("conv1/Conv",)),
        Pair("relu1", ("conv2/Conv", "sum/Add")),
        Pair("relu2", ("conv3/Conv",)),
        Pair("flat", ("logits/Gemm",)),
        Weights("conv1.weight", 0, ("conv1/Conv",)),
        Weights("conv2.weight", 0, ("conv2/Conv",)),
        Weights("conv3.weight", 0, ("conv3/Conv",)),
        Weights("fc.weight", 0, ("logits/Gemm",)),
    )
    assert placement.absorbed == ()


def test_everything_between_kernels_and_what_clips_is_absorbed() -> None:
    placement = placed(residual_net(), "kernels")
    assert placement.absorbed == ("relu1/Relu", "relu2/Relu", "relu3/Relu")
    assert [entry.tensor for entry in placement.entries] == [
        "x", "conv1.weight", "relu1", "conv2.weight", "relu2", "conv3", "conv3.weight", "relu3", "pooled", "fc.weight",
        "flat",
    ]  # fmt: skip
    assert placement.pairs["flat"] == Pair("flat", like="pooled")
    assert "flat" not in placement.own


def test_what_two_read_is_not_absorbed() -> None:
    net = Net()
    x = net.conv("a", net.planes(), 1, 8)
    net.add("r", "Relu", x)
    net.add("g", "Sigmoid", x)
    placement = placed(net.head(net.add("m", "Mul", "r", "g"), 8), "kernels")
    assert placement.absorbed == ()
    assert {"a", "r"} <= set(placement.pairs)


@pytest.mark.parametrize("where", ["inputs", "kernels"])
def test_tensors_that_are_skipped_and_nodes_that_are_left_out(where: Literal["inputs", "kernels"]) -> None:
    model = residual_net()
    assert set(placed(model, where).pairs) - set(placed(model, where, skipped=("relu1",)).pairs) == {"relu1"}
    without = placed(model, where, left_out=("conv2/Conv", "sum/Add"))
    assert [weights.layers[0] for weights in without.weights] == ["conv1/Conv", "conv3/Conv", "logits/Gemm"]
    assert "sum/Add" not in without.pairs.get("relu1", Pair("relu1")).readers


def test_a_skipped_activation_is_not_absorbed_into_nothing() -> None:
    placement = placed(residual_net(), "kernels", skipped=("relu2",))
    assert "relu2/Relu" not in placement.absorbed
    assert "conv2" in placement.pairs


def test_readers_can_be_fewer() -> None:
    placement = placed(residual_net(), "inputs")
    fewer = narrowed(placement, {"relu1": ("conv2/Conv",), "x": (), "flat": ("nobody",)})
    assert fewer.pairs["relu1"] == Pair("relu1", ("conv2/Conv",))
    assert fewer.pairs["x"] == placement.pairs["x"]
    assert "flat" not in fewer.pairs
    assert fewer.weights == placement.weights


def test_weights_that_layers_share_are_named_once_for_each_axis() -> None:
    net = Net()
    net.conv("b", net.conv("a", net.planes(), 1, 8), 8, 8)
    net.add("c", "Conv", "b", "b.weight", "b.bias", pads=[1, 1, 1, 1])
    weights = placed(net.head("c", 8), "inputs").weights
    assert Weights("b.weight", 0, ("b/Conv", "c/Conv")) in weights
