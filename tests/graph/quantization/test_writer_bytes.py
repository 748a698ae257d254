"""The bytes that the writer makes of fixed ranges: a package that was built once is built the same again.

Those of the CPU styles are what ONNX Runtime's own quantizer (1.32) makes of the same ranges.

After a change that is meant to alter them, the version of the quantize stage goes up, and
``python -m tests.graph.quantization.test_writer_bytes`` prints the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.quantization.scheme import CPU, CPU_REDUCED, TENSORRT, TENSORRT_HALF, Scheme

from ...onnx_fixtures import Net, residual_net, with_qdq


def fixed(model: ModelProto) -> ModelProto:
    """With weights that follow from their names and places, whatever the version of numpy draws."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1 and not tensor.name.startswith("pre."):
            steps = (np.arange(values.size, dtype=np.int64) * 7919 + len(tensor.name) * 104729) % 2001 - 1000
            tensor.CopyFrom(
                numpy_helper.from_array((steps / 4096).astype(np.float32).reshape(values.shape), tensor.name)
            )
    return model


def followers() -> ModelProto:
    """A clip, poolings, a reshape, a MatMul, and a bias that two convolutions share."""
    net = Net(opset=20)
    net.constant("low", np.zeros((), np.float32))
    net.constant("high", np.full((), 6, np.float32))
    x = net.add("clip", "Clip", net.conv("a", net.planes(), 1, 8), "low", "high")
    x = net.conv("b", net.add("pool", "MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 8, 8, group=8)
    x = net.add("c", "Conv", net.add("r", "Relu", x), "b.weight", "b.bias", pads=[1] * 4, group=8)
    x = net.add("mean", "AveragePool", x, kernel_shape=[4, 4])
    net.constant("shape", np.array([0, -1]))
    net.weight("mix.weight", 8, 8)
    x = net.add("mix", "MatMul", net.add("rows", "Reshape", x, "shape"), "mix.weight")
    net.weight("fc.weight", 10, 8)
    net.weight("fc.bias", 10)
    net.add("logits", "Gemm", net.add("s", "Relu", x), "fc.weight", "fc.bias", transB=1)
    return net.model()


NETS: dict[str, Callable[[], ModelProto]] = {
    "residual": lambda: residual_net(opset=20),
    "shortcut": lambda: residual_net("conv", shortcut_first=True),
    "followers": followers,
}
SCHEMES: dict[str, Scheme] = {"tensorrt": TENSORRT, "half": TENSORRT_HALF, "cpu": CPU, "reduced": CPU_REDUCED}


def digest(net: str, scheme: str) -> str:
    return hashlib.sha256(to_bytes(with_qdq(fixed(NETS[net]()), SCHEMES[scheme], (-0.75, 1.5)))).hexdigest()


DIGESTS = {
    "residual-tensorrt": "8b5760fdc9c8b938e15cffcd633308b4aa3b73cd17a11888eed392c869411cba",
    "residual-half": "29b1f67b135f67e21ef6fb0b7cdf2a94e07e127966f9dca5db20c28c10339994",
    "residual-cpu": "321839a8e3d33f6e536a041f0d707fec60b23c5c28c1e760930fe27092e1f472",
    "residual-reduced": "1dad8755e29cea4b70ed35d3b566f9661867b5611f8f2b1faf577a4dd0643755",
    "shortcut-tensorrt": "8f4e33d5788eda255349b8396306c396f4e19a7c62a4a23f3dc2358c52941de6",
    "shortcut-half": "7e00111974f94e4a99cc4885517f64692f79d2924497a9906fc981723cd7213f",
    "shortcut-cpu": "0f0ee2597c63bf27a29c5c11de05983ad6d7687bf7000556f6f6c6b97c7cc83c",
    "shortcut-reduced": "644f33f3a9f2cc66b61d5f3004519a33d1a3f609b79ce2990415d1ad14ac617f",
    "followers-tensorrt": "32aba4663a12c83a295af36097f1562afb797dc727514eee73ed24dbb13f0cec",
    "followers-half": "b2b08da30ef7dca70d077719f7a96ff54af46ddfe2e4b055eb89a18d4b4e0a50",
    "followers-cpu": "d2a4c43290e6f89e2dee69f1e2c8699dff1058c53221725f581ba1fb035e7f68",
    "followers-reduced": "fb068f8ef0e0900519aada8a9333a3c227e883fca2dbb0bf0bc6d6a4f15b4f9c",
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("net", NETS)
def test_the_bytes_are_those_of_every_version(net: str, scheme: str) -> None:
    assert digest(net, scheme) == DIGESTS[f"{net}-{scheme}"]


if __name__ == "__main__":
    print({f"{net}-{scheme}": digest(net, scheme) for net in NETS for scheme in SCHEMES})
