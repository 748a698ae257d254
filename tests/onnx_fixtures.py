"""Small ONNX graphs made in place, and a small trained network, for the tests of this folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.passes.tidy import tidy
from dlx_deploy.graph.quantization.layers import excluded, quantizable
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.planning import make_plan
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.scheme import Scheme
from dlx_deploy.graph.quantization.writer import write_qdq


class Net:
    """A graph that grows node by node; ``images`` is uint8[batch, 8, 8, 1] and ``logits`` the last node's output."""

    def __init__(self, opset: int = 17, batch: str | int = "batch") -> None:
        self.opset, self.batch = opset, batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, name: str, *shape: int) -> str:
        values = self._random.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape)
        return self.constant(name, values.astype(np.float32))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def add(self, name: str, op_type: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{name}/{op_type}", **attributes))
        return name

    def planes(self) -> str:
        """float32[batch, 1, 8, 8], about -1 to 1."""
        self.add("float", "Cast", "images", to=TensorProto.FLOAT)
        self.add("planes", "Transpose", "float", perm=[0, 3, 1, 2])
        self.constant("pre.scale", np.full((1, 1, 1), 1 / 128, np.float32))
        self.constant("pre.shift", np.full((1, 1, 1), -1, np.float32))
        return self.add("x", "Add", self.add("scaled", "Mul", "planes", "pre.scale"), "pre.shift")

    def conv(self, name: str, x: str, cin: int, cout: int, kernel: int = 3, **attributes: Any) -> str:
        self.weight(f"{name}.weight", cout, cin // attributes.get("group", 1), kernel, kernel)
        self.weight(f"{name}.bias", cout)
        pads = [kernel // 2] * 4
        return self.add(name, "Conv", x, f"{name}.weight", f"{name}.bias", pads=pads, **attributes)

    def head(self, x: str, cin: int, classes: int = 10) -> ModelProto:
        self.add("pooled", "GlobalAveragePool", x)
        self.add("flat", "Flatten", "pooled", axis=1)
        self.weight("fc.weight", classes, cin)
        self.weight("fc.bias", classes)
        self.add("logits", "Gemm", "flat", "fc.weight", "fc.bias", transB=1)
        return self.model(classes)

    def model(self, classes: int = 10, size: tuple[int, ...] = ()) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, [self.batch, 8, 8, 1])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, classes, *size])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual_net(shortcut: str = "identity", shortcut_first: bool = False, **kind: Any) -> ModelProto:
    """conv1 → relu1 → (conv2 → relu2 → conv3) + shortcut → relu3 → head; the shortcut: nothing, or a 1 x 1 conv."""
    net = Net(**kind)
    start = net.add("relu1", "Relu", net.conv("conv1", net.planes(), 1, 8))
    if shortcut == "conv" and shortcut_first:
        net.conv("short", start, 8, 8, kernel=1)
    net.conv("conv3", net.add("relu2", "Relu", net.conv("conv2", start, 8, 8)), 8, 8)
    if shortcut == "conv" and not shortcut_first:
        net.conv("short", start, 8, 8, kernel=1)
    other = "short" if shortcut == "conv" else start
    inputs = (other, "conv3") if shortcut_first else ("conv3", other)
    return net.head(net.add("relu3", "Relu", net.add("sum", "Add", *inputs)), 8)


def token_net(batch: str | int = "batch") -> ModelProto:
    """An embedding, a MatMul whose rows differ widely in magnitude, a mean over the tokens and a Gemm."""
    random = np.random.default_rng(0)
    arrays = {
        "table": (random.normal(0, 1, (9, 16)) * np.array([0.05, 0.2, 1, 5, 1, 1, 1, 1, 40])[:, None]),
        "mix": random.normal(0, 0.2, (16, 16)),
        "head": random.normal(0, 0.2, (16, 3)),
        "bias": random.normal(0, 0.2, 3),
    }
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"], name="embed/Gather"),
        helper.make_node("MatMul", ["rows", "mix"], ["mixed"], name="mix/MatMul"),
        helper.make_node("ReduceMean", ["mixed"], ["mean"], name="model/ReduceMean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "head", "bias"], ["logits"], name="head/Gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, [batch, "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"max_length": "6"})
    return model


def images(count: int = 40, side: int = 8, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def with_qdq(
    model: ModelProto, scheme: Scheme, bounds: tuple[float, float] = (-1.0, 2.0), exclude: tuple[str, ...] = ()
) -> ModelProto:
    """``model`` in int8 by the scheme, as if every activation went from the lower to the upper of ``bounds``."""
    left_out = excluded(model, exclude)
    placement = place(model, scheme.placement, quantizable(Index(model), left_out), (), left_out)
    ranges = Ranges(tensors={name: {"minmax": bounds} for name in placement.own})
    plan = make_plan(model, scheme, placement, ranges, QuantizationPlan(schema=1), "minmax")
    result = tidy(write_qdq(model, scheme, placement, plan))
    onnx.checker.check_model(result, full_check=True)
    return result


def op_types(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def node(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def remove(model: ModelProto, names: Sequence[str]) -> None:
    for node in [n for n in model.graph.node if n.name in names]:
        model.graph.node.remove(node)


@functools.cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Training images and labels, test images and labels: scikit-learn's digits as uint8[N, 8, 8, 1]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.clip(data.images * 16, 0, 255).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(pictures))
    pictures, labels = pictures[order], data.target[order].astype(np.int64)
    return pictures[:1200], labels[:1200], pictures[1200:], labels[1200:]


@functools.cache
def trained() -> Any:
    """A small residual network with batch norm that knows the digits; do not train it further."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = tiny_resnet()
    pictures, labels, _, _ = digits()
    x = torch.from_numpy(((pictures / 255.0 - 0.3) / 0.4).transpose(0, 3, 1, 2).astype(np.float32))
    y = torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    steps = 8 * 19
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(8):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def tiny_resnet(channels: int = 1, classes: int = 10) -> Any:
    """Stem, an identity block, a block with a strided 1 x 1 shortcut, pooling, a linear layer: torch.nn.Module."""
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
            self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
            self.short = nn.Identity()
            if stride != 1:
                self.short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

        def forward(self, x: Tensor) -> Tensor:
            return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.short(x)).relu()

    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


@functools.cache
def exported(opset: int = 17, batch: Any = "dynamic") -> bytes:
    """``trained()`` as ONNX."""
    from dlx_deploy.nn.export.network import export_onnx

    from .arrays import image_spec

    with TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        export_onnx(trained(), path, image_spec(8, 8, 1, (0.3,), (0.4,), opset, batch=batch))
        return path.read_bytes()


def product_net(inputs: int = 64, hidden: int = 64, classes: int = 10, opset: int = 20) -> ModelProto:
    """``first`` (MatMul and a sum, float32 ``x`` [batch, 3, inputs]) → Relu → a mean → ``head`` (Gemm, transposed)."""
    random = np.random.default_rng(0)
    arrays = {
        "first.weight": random.normal(0, 1 / np.sqrt(inputs), (inputs, hidden)),
        "first.bias": random.normal(0, 0.1, hidden),
        "head.weight": random.normal(0, 1 / np.sqrt(hidden), (classes, hidden)),
        "head.bias": random.normal(0, 0.1, classes),
    }
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["first"], name="first/MatMul"),
        helper.make_node("Add", ["first", "first.bias"], ["biased"], name="first/Add"),
        helper.make_node("Relu", ["biased"], ["relu"], name="relu/Relu"),
        helper.make_node("GlobalAveragePool", ["turned"], ["pooled"], name="pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat/Flatten"),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], name="head/Gemm", transB=1),
    ]
    nodes.insert(3, helper.make_node("Transpose", ["relu"], ["turned"], name="turn/Transpose", perm=[0, 2, 1]))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, inputs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    return model
