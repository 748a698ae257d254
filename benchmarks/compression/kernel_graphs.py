"""What ``kernels.py`` times: an operator between quantized tensors, on integers and as an island of floating point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.quantization.gates import Integers, gate_of

__all__ = ["OPERATORS", "Array", "Pairing", "image"]

X_SCALE, X_ZERO, UNIT = 0.03, 100, 1 / 255
NORMALISATION = (np.array([0.0171, 0.0175, 0.0174], np.float32), np.array([-2.118, -2.036, -1.804], np.float32))

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Pairing:
    """The same numbers on integers and as an island; ``exact`` runs the second by leaving Q/DQ as they are."""

    integers: ModelProto
    island: ModelProto
    feed: dict[str, Array]
    exact: bool = True


class Net:
    """Puts a graph of uint8 inputs and one uint8 output together."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: dict[str, Sequence[int]] = {}

    def read(self, name: str, shape: Sequence[int], scale: float = X_SCALE, zero: int = X_ZERO) -> str:
        """An input, dequantized."""
        self.inputs[name] = shape
        return self.restore(name, scale, zero)

    def restore(self, name: str, scale: float, zero: int) -> str:
        ends = [f"{name}_scale", f"{name}_zero"]
        self.constants |= {ends[0]: np.array(scale, np.float32), ends[1]: np.array(zero, np.uint8)}
        return self.add("DequantizeLinear", [name, *ends], f"{name}_real")

    def round(self, name: str, scale: float = X_SCALE, zero: int = X_ZERO) -> str:
        """Quantized; and named so that ``restore`` of it is what reads it."""
        ends = [f"{name}_to_scale", f"{name}_to_zero"]
        self.constants |= {ends[0]: np.array(scale, np.float32), ends[1]: np.array(zero, np.uint8)}
        return self.add("QuantizeLinear", [name, *ends], f"{name}_integers")

    def add(self, operator: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def convolution(self, x: str, out: str, weights: Sequence[int], stride: int = 1, int8: bool = True) -> str:
        """A convolution of random weights, on int8 or not."""
        rng, channels = np.random.default_rng(0), weights[0]
        pads = [weights[2] // 2] * 4
        steps = rng.integers(-64, 65, weights).astype(np.int8)
        scale = np.full(channels, 1 / (40 * np.sqrt(np.prod(weights[1:]))), np.float32)
        name = f"{out}_weights"
        if int8:
            self.constants |= {
                f"{name}_steps": steps,
                f"{name}_scale": scale,
                f"{name}_zero": np.zeros(channels, np.int8),
            }
            self.add("DequantizeLinear", [f"{name}_{part}" for part in ("steps", "scale", "zero")], name, axis=0)
        else:
            self.constants[name] = steps.astype(np.float32) * scale[0]
        return self.add("Conv", [x, name], out, strides=[stride, stride], pads=pads)

    def model(self, out: str) -> ModelProto:
        inputs = [helper.make_tensor_value_info(n, TensorProto.UINT8, list(s)) for n, s in self.inputs.items()]
        constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        end = helper.make_tensor_value_info(out, TensorProto.UINT8, None)
        graph = helper.make_graph(self.nodes, "kernel", inputs, [end], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def one_input(operator: str, scale: float = X_SCALE, zero: int = X_ZERO, **attributes: Any) -> Callable[..., Pairing]:
    """An operator of one quantized tensor; ``scale`` and ``zero`` of what it gives."""

    def pairing(shape: Sequence[int]) -> Pairing:
        net = Net()
        y = net.add(operator, [net.read("x", [1, *shape])], "y", **attributes)
        model = net.model(net.round(y, scale, zero))
        return Pairing(model, model, _feed(net))

    return pairing


def moving(put: Callable[[Net, str, int], str], **shown: Any) -> Callable[..., Pairing]:
    """What moves numbers, ``put`` behind a 1 x 1 convolution and before another, as these have another layout than the
    graph. With a scale of its own behind it, nothing can be left out: the island.
    """

    def pairing(shape: Sequence[int]) -> Pairing:
        models = []
        for factor in (1.0, 1.01):
            net = Net()
            first = net.convolution(net.read("x", [1, *shape]), "first", [shape[0], shape[0], 1, 1])
            moved = put(net, net.restore(net.round(first), X_SCALE, X_ZERO), shape[0])
            read = net.restore(net.round(moved, X_SCALE * factor), X_SCALE * factor, X_ZERO)
            channels = {"halved": shape[0] // 2, "quartered": shape[0] // 4}.get(str(shown.get("channels")), shape[0])
            models.append(net.model(net.round(net.convolution(read, "second", [16, channels, 1, 1]))))
        return Pairing(models[0], models[1], _feed(net), exact=False)

    return pairing


def resized(mode: str) -> Callable[..., Pairing]:
    """Made larger and joined with another map, as on the way up of a U-Net; as an island the two of them are one."""

    def pairing(shape: Sequence[int]) -> Pairing:
        channels, height, width = shape
        models = []
        for int8 in (True, False):
            net = Net()
            first = net.convolution(net.read("x", [1, *shape]), "first", [channels, channels, 1, 1])
            net.constants["factors"] = np.array([1, 1, 2, 2], np.float32)
            large = net.add(
                "Resize", [net.restore(net.round(first), X_SCALE, X_ZERO), "", "factors"], "large", mode=mode
            )
            if int8:
                large = net.restore(net.round(large), X_SCALE, X_ZERO)
            other = net.read("g", [1, channels, 2 * height, 2 * width], UNIT, 0)
            joined = net.restore(net.round(net.add("Concat", [large, other], "y", axis=1)), X_SCALE, X_ZERO)
            models.append(net.model(net.round(net.convolution(joined, "second", [16, 2 * channels, 1, 1]))))
        return Pairing(models[0], models[1], _feed(net), exact=False)

    return pairing


def split(shape: Sequence[int]) -> Pairing:
    """Cut in two, which are joined the other way round; as an island the two of them are one."""
    models = []
    for int8 in (True, False):
        net, half = Net(), shape[0] // 2
        first = net.convolution(net.read("x", [1, *shape]), "first", [shape[0], shape[0], 1, 1])
        net.constants["sizes"] = np.array([half, half], np.int64)
        x = net.restore(net.round(first), X_SCALE, X_ZERO)
        net.nodes.append(helper.make_node("Split", [x, "sizes"], ["a", "b"], name="a", axis=1))
        parts = [net.restore(net.round(part), X_SCALE, X_ZERO) if int8 else part for part in ("b", "a")]
        joined = net.restore(net.round(net.add("Concat", parts, "y", axis=1)), X_SCALE, X_ZERO)
        models.append(net.model(net.round(net.convolution(joined, "second", [16, shape[0], 1, 1]))))
    return Pairing(models[0], models[1], _feed(net), exact=False)


def sliced(net: Net, x: str, channels: int) -> str:
    net.constants |= {"from": np.array([0]), "to": np.array([channels // 2]), "along": np.array([1])}
    return net.add("Slice", [x, "from", "to", "along"], "y")


def transposed(net: Net, x: str, channels: int) -> str:
    return net.add("Transpose", [x], "y", perm=[0, 1, 3, 2])


def spread(net: Net, x: str, channels: int) -> str:
    return net.add("DepthToSpace", [x], "y", blocksize=2)


def two_inputs(operator: str, gate: bool = False, **attributes: Any) -> Callable[..., Pairing]:
    """An operator of two quantized tensors; ``gate``: the second is a number for each channel, 0 to 1."""

    def pairing(shape: Sequence[int]) -> Pairing:
        net = Net()
        second = net.read("g", [1, shape[0], 1, 1] if gate else [1, *shape], UNIT, 0)
        y = net.add(operator, [net.read("x", [1, *shape]), second], "y", **attributes)
        model = net.model(net.round(y))
        return Pairing(model, model, _feed(net))

    return pairing


def gated(operator: str) -> Callable[..., Pairing]:
    """HardSwish or HardSigmoid, as the writer has it beside as it is."""

    def pairing(shape: Sequence[int]) -> Pairing:
        swish = operator == "HardSwish"
        ends = (X_SCALE, X_ZERO) if swish else (UNIT, 0)
        plain = Net()
        node = helper.make_node(operator, [plain.read("x", [1, *shape])], ["y"], name="y")
        plain.nodes.append(node)
        written = Net()
        x = Integers("x", written.read("x", [1, *shape]), np.float32(X_SCALE), "x_zero")
        gate = gate_of(node, x, clips=True)
        if not swish:
            written.nodes.clear()  # nobody reads what was dequantized
        written.nodes += gate.nodes
        written.constants |= gate.constants
        models = [net.model(net.round("y", *ends)) for net in (written, plain)]
        return Pairing(models[0], models[1], _feed(written), exact=False)

    return pairing


def image(side: int, colours: int, channels: int, kernel: int, stride: int) -> Pairing:
    """From a uint8 image to the integers of the second convolution."""
    models = []
    for int8 in (True, False):
        net = Net()
        net.inputs["x"] = [1, side, side, colours]
        names = ("scale", "shift")
        net.constants |= {n: v[:colours].reshape(-1, 1, 1) for n, v in zip(names, NORMALISATION, strict=True)}
        net.add("Cast", ["x"], "cast", to=TensorProto.FLOAT)
        net.add("Transpose", ["cast"], "moved", perm=[0, 3, 1, 2])
        net.add("Mul", ["moved", "scale"], "scaled")
        read = net.add("Add", ["scaled", "shift"], "normal")
        if int8:
            read = net.restore(net.round(read, 0.02, 114), 0.02, 114)
        first = net.convolution(read, "first", [channels, colours, kernel, kernel], stride, int8)
        if not int8:
            first = net.add("Relu", [first], "relu")
        second = net.convolution(net.restore(net.round(first, X_SCALE, 0), X_SCALE, 0), "second", [16, channels, 1, 1])
        models.append(net.model(net.round(second)))
    feed: dict[str, Array] = {"x": np.random.default_rng(0).integers(0, 256, [1, side, side, colours]).astype(np.uint8)}
    return Pairing(models[0], models[1], feed, exact=False)


OPERATORS: dict[str, Callable[..., Pairing]] = {
    "Add": two_inputs("Add"),
    "Mul": two_inputs("Mul"),
    "Mul, gate": two_inputs("Mul", gate=True),
    "Concat": two_inputs("Concat", axis=1),
    "Sigmoid": one_input("Sigmoid", UNIT, 0),
    "LeakyRelu": one_input("LeakyRelu", alpha=0.1),
    "Softmax": one_input("Softmax", UNIT, 0, axis=1),
    "HardSwish": gated("HardSwish"),
    "HardSigmoid": gated("HardSigmoid"),
    "Resize": resized("nearest"),
    "Resize:linear": resized("linear"),
    "Slice": moving(sliced, channels="halved"),
    "Split": split,
    "Transpose": moving(transposed),
    "DepthToSpace": moving(spread, channels="quartered"),
}


def _feed(net: Net) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, list(shape)).astype(np.uint8) for name, shape in net.inputs.items()}
