"""The one writer of Q/DQ: a plan and a placement become nodes and constants, in the scheme's form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import Index, load, opset
from dlx_deploy.graph.quantization.blocks import in_block_opset, int4_tensor
from dlx_deploy.graph.quantization.fp8 import FP8_OPSET, fp8_array
from dlx_deploy.graph.quantization.gates import Integers, clips_to_unit, gate_of
from dlx_deploy.graph.quantization.placement import Pair, Placement, Weights
from dlx_deploy.graph.quantization.plan import QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.planning import (
    LARGEST_BIAS,
    bias_of,
    integer_limits,
    scale_of,
    weight_levels,
    weight_scales,
)
from dlx_deploy.graph.quantization.rounding import Rounding, nearest
from dlx_deploy.graph.quantization.scheme import Scheme
from dlx_deploy.targets.opsets import OLDEST

__all__ = ["write_qdq"]

Array = NDArray[np.generic]


def write_qdq(
    model: ModelProto, scheme: Scheme, placement: Placement, plan: QuantizationPlan, rounding: Rounding = nearest
) -> ModelProto:
    """A copy of ``model`` (float32) in which what ``placement`` names computes on the integers that ``plan`` says.

    New nodes follow the node whose output they take, or precede the layer whose weights they hold.

    Raises:
        ConfigError: the opset is too old, or cannot become that of INT4.
        StageFailed: ``rounding`` gave something else than integers for a layer's weights.
    """
    oldest = FP8_OPSET if scheme.activations == "fp8" else OLDEST
    if opset(model) < oldest:
        what = "FP8" if scheme.activations == "fp8" else "per-channel scales"
        raise ConfigError(f"the graph is at opset {opset(model)}; rule: {oldest} or newer for {what}")
    model = in_block_opset(load(model)) if scheme.block_size else load(model)
    writer = _Writer(model, scheme, plan, rounding)
    writer.absorb(placement.absorbed)
    for entry in placement.entries:
        if isinstance(entry, Weights):
            writer.weights(entry)
        else:
            writer.pair(entry)
    for name in placement.gates:
        writer.gate(name)
    if scheme.biases == "int32":
        writer.biases(plan)
    return writer.finished()


class _Writer:
    """Collects nodes and where they belong; the graph is put together at the end."""

    def __init__(self, model: ModelProto, scheme: Scheme, plan: QuantizationPlan, rounding: Rounding) -> None:
        self._model, self._index = model, Index(model)
        self._scheme, self._names, self._plan, self._rounding = scheme, scheme.names, plan, rounding
        self._nodes = {node.name: node for node in model.graph.node}
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._inputs = {node.name: node.input[0] for node in model.graph.node if node.input}
        self._outputs = {value.name for value in model.graph.output}
        self._parameters: dict[str, list[str]] = {}
        self._behind: dict[str, list[NodeProto]] = {}
        self._before: dict[str, list[NodeProto]] = {}
        self._added: list[NodeProto] = []
        self._replaced: set[str] = set()

    def absorb(self, names: tuple[str, ...]) -> None:
        """Leave out nodes; what makes their input makes their output instead."""
        for name in names:
            gone = self._nodes.pop(name)
            self._rename_output(gone.input[0], gone.output[0])

    def pair(self, pair: Pair) -> None:
        """Quantize and dequantize an activation."""
        name, ends = pair.tensor, self._names
        parameters = self._parameters[pair.like] if pair.like else self._activation_constants(name)
        self._parameters[name] = parameters
        source, restored = name, name + ends.restored
        if name in self._outputs:
            source, restored = name + ends.unquantized, name
            self._rename_output(name, source)
        else:
            self._redirect(name, restored, pair.readers)
        quantized = name + ends.quantized
        clip = self._clip(name, source) if self._plan.tensors[name].bits else []
        read = clip[0].output[0] if clip else source
        nodes = [
            *clip,
            helper.make_node("QuantizeLinear", [read, *parameters], [quantized], name=name + ends.quantize),
            helper.make_node("DequantizeLinear", [quantized, *parameters], [restored], name=name + ends.dequantize),
        ]
        self._behind.setdefault(source, []).extend(nodes)
        self._added += nodes

    def _clip(self, name: str, source: str) -> list[NodeProto]:
        """What keeps an activation within its integers, where these are fewer than those that it is stored as."""
        line, scale = self._plan.tensors[name], scale_of(self._plan, name)
        inputs = [source]
        for end, integer in zip(("smallest", "largest"), integer_limits(self._scheme, line.bits), strict=True):
            value = np.asarray(scale * np.float32(integer - (line.zero_point or 0)), np.float32)
            self._model.graph.initializer.append(_tensor(value, f"{name}/{end}", raw=True))
            inputs.append(f"{name}/{end}")
        return [helper.make_node("Clip", inputs, [f"{name}/clipped"], name=f"{name}/Clip")]

    def weights(self, weights: Weights) -> None:
        """Fold the weights of layers to integers and dequantize them."""
        weight = self._index.array(weights.tensor).astype(np.float32)
        first = weights.layers[0]
        line = self._plan.layers[first]
        scale, spread = weight_scales(self._scheme, line, weight, weights.axis)
        levels = weight_levels(self._scheme, line)
        if self._scheme.activations == "fp8":
            steps: Array = fp8_array(weight / spread)
        else:
            steps = self._rounding(first, weight, spread, levels)
            _check_rounded(first, steps, weight, levels)
        stem = weights.tensor + (self._names.axis.format(weights.axis) if weights.axis else "")
        if stem + self._names.stored in self._index.initializers:  # another layer reads them along another axis
            stem += f"{self._names.axis or '_axis'}{weights.axis}"
        restored = stem + self._names.restored
        if line.block_size:
            inputs, axis = self._store_blocks(stem, steps, scale), 1 - weights.axis
        else:
            parts = self._store(
                stem, {"stored": steps, "scale": scale, "zero_point": np.zeros(scale.shape, steps.dtype)}
            )
            inputs, axis = [parts[part] for part in ("stored", "scale", "zero_point")], weights.axis
        node = helper.make_node("DequantizeLinear", inputs, [restored], name=stem + self._names.dequantize, axis=axis)
        if line.block_size:
            node.attribute.append(helper.make_attribute("block_size", line.block_size))
        for name in weights.layers:
            self._nodes[name].input[1] = restored
        self._before.setdefault(first, []).append(node)
        self._added.append(node)

    def gate(self, name: str) -> None:
        """Put sums and products of integers in place of a gate between two quantized activations."""
        node = self._nodes[name]
        x, out = self._inputs[name], node.output[0]
        integers = Integers(x + self._names.quantized, node.input[0], scale_of(self._plan, x), self._parameters[x][1])
        entry = self._plan.tensors[out] if out in self._plan.tensors else TensorPlan()
        gate = gate_of(node, integers, clips_to_unit(entry.scale or np.inf, entry.zero_point or 0))
        for constant, value in gate.constants.items():
            self._model.graph.initializer.append(numpy_helper.from_array(value, constant))
        *before, last = gate.nodes
        self._nodes[name] = last
        self._before.setdefault(name, []).extend(before)
        self._added += before
        self._drop_unread(integers.restored)

    def biases(self, plan: QuantizationPlan) -> None:
        """Biases of the layers on int8 in units of input times weight, as the kernels add them."""
        for node in list(self._nodes.values()):
            bias = bias_of(self._index, node) if node.name in plan.layers else None
            if bias is not None:
                self._bias(node, bias)

    def finished(self) -> ModelProto:
        """The graph with all that was collected."""
        graph = self._model.graph
        constants = [tensor for tensor in graph.initializer if tensor.name not in self._replaced]
        nodes = self._in_place() if self._scheme.order == "in place" else self._breadth_first(constants)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.initializer[:]
        graph.initializer.extend(constants)
        return self._model

    def _rename_output(self, old: str, new: str) -> None:
        maker = self._makers[new] = self._makers.pop(old)
        maker.output[list(maker.output).index(old)] = new

    def _redirect(self, name: str, restored: str, readers: tuple[str, ...]) -> None:
        """Have ``readers``, or all nodes, read ``restored`` in place of ``name``."""
        for node in [self._nodes[reader] for reader in readers] or self._nodes.values():
            for position, read in enumerate(node.input):
                if read == name:
                    node.input[position] = restored

    def _drop_unread(self, restored: str) -> None:
        """Leave out what dequantizes an activation that is read as integers alone."""
        if restored in self._outputs or any(restored in node.input for node in (*self._nodes.values(), *self._added)):
            return
        for nodes in (self._added, *self._behind.values()):
            nodes[:] = [node for node in nodes if restored not in node.output]

    def _activation_constants(self, name: str) -> list[str]:
        zero_point, is_fp8 = self._plan.tensors[name].zero_point or 0, self._scheme.activations == "fp8"
        values: dict[str, Array] = {
            "scale": np.asarray(scale_of(self._plan, name)),
            "zero_point": fp8_array(np.zeros(())) if is_fp8 else np.asarray(zero_point, dtype=self._scheme.activations),
        }
        constants = self._store(name, values)
        return [constants["scale"], constants["zero_point"]]

    def _store(self, stem: str, values: Mapping[str, Array]) -> dict[str, str]:
        """Constants under the scheme's names and in its order; part → name."""
        ends = {"stored": self._names.stored, "scale": self._names.scale, "zero_point": self._names.zero_point}
        for part in self._names.order:
            if part in values:
                raw = self._names.raw or part == "stored"
                self._model.graph.initializer.append(_tensor(values[part], stem + ends[part], raw))
        return {part: stem + ends[part] for part in values}

    def _store_blocks(self, stem: str, steps: Array, scale: NDArray[np.float32]) -> list[str]:
        """INT4 integers and their scales; without a zero point, which is 0 then."""
        stored, scales = stem + self._names.stored, stem + self._names.scale
        tensors = self._model.graph.initializer
        tensors.extend([int4_tensor(steps, stored), numpy_helper.from_array(scale, scales)])
        return [stored, scales]

    def _bias(self, node: NodeProto, bias: Array) -> None:
        name = node.input[2]
        if name in self._replaced:  # by another layer, with its own scales
            name = node.input[2] = self._free_name(name)
        self._replaced.add(name)
        scale = scale_of(self._plan, self._inputs[node.name]) * np.asarray(
            self._plan.layers[node.name].scales, dtype=np.float32
        )
        steps = np.round(bias.astype(np.float64) / scale.astype(np.float64)).clip(-LARGEST_BIAS - 1, LARGEST_BIAS)
        stem = name + self._names.stored
        inputs = [stem, stem + self._names.scale, stem + self._names.zero_point]
        zero_point = np.zeros(scale.shape if scale.size > 1 else (), np.int32)
        for part, value in zip(inputs, (steps.astype(np.int32), scale, zero_point), strict=True):
            self._model.graph.initializer.append(_tensor(value, part, raw=bool(value.ndim)))
        axis = 0 if scale.size > 1 else None  # a single scale has none
        added = helper.make_node("DequantizeLinear", inputs, [name], name=name + self._names.dequantize, axis=axis)
        self._before.setdefault(node.name, []).append(added)
        self._added.append(added)

    def _free_name(self, name: str) -> str:
        """``name`` with the first number behind all that constants of that name have."""
        tails = [t.name.removeprefix(name) for t in self._model.graph.initializer if t.name.startswith(name)]
        taken = [int(tail) for tail in [*tails, *(r.removeprefix(name) for r in self._replaced)] if tail.isdecimal()]
        return f"{name}{max(taken, default=-1) + 1}"

    def _in_place(self) -> list[NodeProto]:
        nodes: list[NodeProto] = []
        for node in self._nodes.values():
            nodes += [*self._before.get(node.name, ()), node]
            nodes += [new for name in node.output for new in self._behind.get(name, ())]
        return nodes

    def _breadth_first(self, constants: list[TensorProto]) -> list[NodeProto]:
        """What depends on constants and inputs alone first, by their names; then what waits for nothing else."""
        nodes = [*self._nodes.values(), *self._added]
        waiting = [sum(bool(name) for name in node.input) for node in nodes]
        readers: dict[str, list[int]] = {}
        for position, node in enumerate(nodes):
            for name in filter(None, node.input):
                readers.setdefault(name, []).append(position)
        ready = [nodes[position] for position, count in enumerate(waiting) if not count]

        def known(name: str) -> None:
            for position in readers.get(name, ()):
                waiting[position] -= 1
                if not waiting[position]:
                    ready.append(nodes[position])

        for name in sorted({*(tensor.name for tensor in constants), *(v.name for v in self._model.graph.input)}):
            known(name)
        for node in ready:  # which grows
            for name in node.output:
                known(name)
        return ready


def _tensor(values: Array, name: str, raw: bool) -> TensorProto:
    if raw:
        return numpy_helper.from_array(values, name)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    return helper.make_tensor(name, kind, values.shape, values.reshape(-1).tolist())


def _check_rounded(layer: str, steps: Array, weight: Array, levels: int) -> None:
    if steps.dtype != np.int8 or steps.shape != weight.shape or np.abs(steps.astype(np.int16)).max(initial=0) > levels:
        raise StageFailed(
            f"the rounding of {layer!r} gave {steps.dtype}{list(steps.shape)}, {steps.min()} to {steps.max()}; "
            f"rule: int8{list(weight.shape)} from -{levels} to {levels}"
        )
