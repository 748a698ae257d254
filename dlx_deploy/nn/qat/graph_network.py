"""A float32 ONNX graph as a torch network that learns: the same tensors by name, with fake quantizers among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import LAYERS, Index, input_dims
from dlx_deploy.graph.quantization.gates import GATE_LEVELS
from dlx_deploy.nn.models.outputs import Answer, tensors_of
from dlx_deploy.nn.qat.attributes import Attributes, Given, Unsupported
from dlx_deploy.nn.qat.front import Front, front_of
from dlx_deploy.nn.qat.operators import OPERATORS
from dlx_deploy.nn.qat.quantizers import FakeQuantizer

__all__ = ["Fakes", "GraphNetwork"]

_LEARNED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "LayerNormalization"), (1, 2)),
    "MatMul": (1,),
    "Gather": (0,),
    "PRelu": (1,),
}
"""Operator → the inputs that are weights, where they are constants of the graph."""


@dataclass(frozen=True)
class Fakes:
    """What is rounded where. ``tensors``: activation → its quantizer; ``weights``: layer → that of its weights.

    ``readers``: activation → the nodes that read it rounded, where not all do. ``absorbed``: nodes that go, as the
    quantizer behind them clips as they do. ``gates``: nodes that are written as sums and products of integers.
    ``whole_biases``: biases are integers of the product of both scales.
    """

    tensors: Mapping[str, FakeQuantizer] = field(default_factory=dict)
    weights: Mapping[str, FakeQuantizer] = field(default_factory=dict)
    readers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absorbed: Sequence[str] = ()
    gates: Sequence[str] = ()
    whole_biases: bool = False


@dataclass(frozen=True)
class _Call:
    """A node: what it reads and gives, and which tensors nobody reads after it."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    last: tuple[str, ...] = ()


class GraphNetwork(nn.Module):
    """Reads what the network reads that the graph was exported from, and answers as it does.

    In training and evaluation the same numbers, but for how they are summed: in evaluation an INT8 layer is the sum of
    the integers, times the product of the scales, plus the bias, as the graph is judged and as devices compute it.
    ``padding``: of tokens, where the graph takes one length alone. A graph of one batch size answers any
    here, by so many rows at a time.

    Raises:
        StageFailed: a node has no counterpart in torch, or the part before the network is not told from it.
    """

    def __init__(self, model: ModelProto, fakes: Fakes | None = None, padding: int = 0) -> None:
        super().__init__()
        self._fakes = fakes or Fakes()
        index, front = Index(model), front_of(model)
        self._front, self._outputs = front, tuple(value.name for value in model.graph.output)
        self.dims = input_dims(model)
        (dims,) = self.dims.values()
        self._batch = dims[0] if dims else None
        self._length, self._padding = (dims[1] if len(dims) == 2 else None), padding
        calls = [_gated(_call(node), self._fakes.gates) for node in _needed(model, front)]
        calls = _absorbed(calls, self._fakes.absorbed)
        self._steps = [_call(node) for node in model.graph.node if set(node.output) & set(front.tensors)]
        self._calls = _with_last(calls, (*self._outputs, *front.tensors))
        self._keys = {name: f"t{i}" for i, name in enumerate(sorted(_constants([*self._steps, *calls], index)))}
        learned = _learned(calls, index)
        self.learned, self.constants = nn.ParameterDict(), nn.Module()
        for name, key in self._keys.items():
            values = torch.from_numpy(np.array(index.array(name)))
            if name in learned:
                self.learned[key] = nn.Parameter(values)
            else:
                self.constants.register_buffer(key, values)
        self._is_learned = learned
        own = {id(fake): fake for fake in (*self._fakes.tensors.values(), *self._fakes.weights.values())}
        self.quantizers = nn.ModuleList(own.values())
        places = {identity: position for position, identity in enumerate(own)}
        self._places = {
            **{("tensor", name): places[id(fake)] for name, fake in self._fakes.tensors.items()},
            **{("layer", name): places[id(fake)] for name, fake in self._fakes.weights.items()},
        }
        self._fakes = replace(self._fakes, tensors={}, weights={})  # a copy of the network has its own quantizers

    def forward(self, x: Tensor) -> Answer:
        """What the graph answers: a tensor, or a tuple of its outputs in their order."""
        if self._length is not None and x.shape[1] < self._length:
            x = F.pad(x, (0, self._length - x.shape[1]), value=self._padding)
        if self._batch is None or len(x) == self._batch:
            return self._answer(x)
        filled = x[torch.arange(-(-len(x) // self._batch) * self._batch, device=x.device) % len(x)]
        parts = [tensors_of(self._answer(part)) for part in filled.chunk(len(filled) // self._batch)]
        whole = tuple(torch.cat(outputs)[: len(x)] for outputs in zip(*parts, strict=True))
        return whole if len(whole) > 1 else whole[0]

    def _answer(self, x: Tensor) -> Answer:
        run = _Run(self, self._front.values(x))
        for call in self._calls:
            run.call(call)
        answers = tuple(run.read(name, "") for name in self._outputs)
        return answers if len(answers) > 1 else answers[0]

    def preprocessed(self, stored: Tensor) -> Tensor:
        """What the network reads for inputs as the graph takes them, in the graph's own arithmetic."""
        run = _Run(self, {self._front.tensors[0]: stored})
        for step in self._steps:
            run.call(step)
        return self._front.read(run.value(self._front.tensors[-1]))

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name in the graph → what was learned for it."""
        for name in sorted(self._is_learned):
            yield name, self.learned[self._keys[name]].detach().cpu().numpy()

    def quantizer(self, kind: str, name: str) -> FakeQuantizer | None:
        """That of the activation (``"tensor"``) or of the layer's weights (``"layer"``) ``name``, if it has one."""
        place = self._places.get((kind, name))
        if place is None:
            return None
        quantizer = self.quantizers[place]
        assert isinstance(quantizer, FakeQuantizer)
        return quantizer

    def constant(self, name: str) -> Tensor | None:
        """The constant ``name`` of the graph, learned or not."""
        key = self._keys.get(name)
        if key is None:
            return None
        tensor: Tensor = self.learned[key] if name in self._is_learned else self.constants.get_buffer(key)
        return tensor

    def reads_rounded(self, name: str, reader: str) -> bool:
        """Whether ``reader``, a node or empty for the outside, reads the activation ``name`` rounded."""
        named = self._fakes.readers.get(name, ())
        return ("tensor", name) in self._places and (not named or reader in named or name in self._outputs)

    @property
    def whole_biases(self) -> bool:
        """Whether biases are integers."""
        return self._fakes.whole_biases


class _Run:
    """The values of one pass."""

    def __init__(self, network: GraphNetwork, values: dict[str, Tensor]) -> None:
        self._network, self._values = network, values
        self._rounded: dict[tuple[str, str], Tensor] = {}

    def call(self, call: _Call) -> None:
        """Compute one node."""
        try:
            total = self._on_integers(call)
            given = OPERATORS[call.operator](call.attributes, self._given(call)) if total is None else total
        except Unsupported as e:
            raise _unknown(call.name, call.operator, str(e)) from e
        for name, tensor in zip(call.outputs, given if isinstance(given, tuple) else (given,), strict=False):
            self._values[name] = tensor
        for name in call.last:
            self._values.pop(name, None)
            self._rounded.pop(("tensor", name), None)

    def value(self, name: str) -> Tensor:
        """A tensor as it was computed."""
        return self._values[name]

    def read(self, name: str, reader: str) -> Tensor:
        """A tensor as ``reader`` gets it."""
        constant = self._network.constant(name)
        if constant is not None:
            return constant
        if not self._network.reads_rounded(name, reader):
            return self._values[name]
        return self._fake("tensor", name, self._values[name])

    def _given(self, call: _Call) -> Given:
        weights = self._network.quantizer("layer", call.name)
        given = tuple(self.read(name, call.name) if name else None for name in call.inputs)
        return given if weights is None else (given[0], weights(given[1]), *given[2:])

    def _fake(self, kind: str, name: str, value: Tensor) -> Tensor:
        if (kind, name) not in self._rounded:
            quantizer = self._network.quantizer(kind, name)
            assert quantizer is not None
            self._rounded[kind, name] = quantizer(value)
        return self._rounded[kind, name]

    def _on_integers(self, call: _Call) -> Tensor | None:
        """In evaluation, what an INT8 layer gives; ``None`` for any other node."""
        weights = self._network.quantizer("layer", call.name)
        x = self._network.quantizer("tensor", call.inputs[0]) if call.inputs else None
        if self._network.training or weights is None or x is None:
            return None
        if not self._network.reads_rounded(call.inputs[0], call.name):
            return None
        weight = self._network.constant(call.inputs[1])
        assert weight is not None
        integers = (x.integers(self._values[call.inputs[0]]), weights.integers(weight))
        total = OPERATORS[call.operator](call.attributes, integers)
        assert isinstance(total, Tensor)
        spread = [-1, *[1] * (total.ndim - 2)] if call.operator == "Conv" else [-1]
        scale = x.scale() * weights.scale()
        bias = self.read(call.inputs[2], call.name) if len(call.inputs) > 2 and call.inputs[2] else None
        if bias is None:
            return total * scale.view(spread)
        if self._network.whole_biases and bias.ndim == 1:
            return (total + (bias / scale).round().view(spread)) * scale.view(spread)
        return total * scale.view(spread) + (bias.view(spread) if bias.ndim == 1 else bias)


def _call(node: NodeProto) -> _Call:
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise _unknown(node.name, node.op_type, "its operator")
    attributes = Attributes.of(node)
    if node.op_type == "Split":
        attributes = Attributes({**attributes.values, "parts": len(node.output)})
    return _Call(node.name, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _gated(call: _Call, gates: Sequence[str]) -> _Call:
    """``call``, which rounds its gate if it is one of ``gates``."""
    if call.name not in gates:
        return call
    return replace(call, attributes=Attributes({**call.attributes.values, "levels": GATE_LEVELS}))


def _unknown(name: str, operator: str, what: str) -> StageFailed:
    return StageFailed(
        f"qat: node {name!r} ({operator}): {what} is not among what learns in torch here; set qat.enabled = false"
    )


def _needed(model: ModelProto, front: Front) -> list[NodeProto]:
    """The nodes behind the front that the outputs rest on, in graph order."""
    wanted, nodes = {value.name for value in model.graph.output}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output) and not set(node.output) & set(front.tensors):
            wanted |= set(node.input)
            nodes.append(node)
    return nodes[::-1]


def _absorbed(calls: list[_Call], names: Sequence[str]) -> list[_Call]:
    """``calls`` without those of ``names``: what makes their input makes their output instead."""
    for name in names:
        gone = next(call for call in calls if call.name == name)
        old, new = gone.inputs[0], gone.outputs[0]
        calls = [
            replace(call, outputs=tuple(new if out == old else out for out in call.outputs))
            for call in calls
            if call is not gone
        ]
    return calls


def _with_last(calls: Sequence[_Call], kept: Sequence[str]) -> list[_Call]:
    """``calls`` that know which tensors they are the last to read."""
    seen, marked = set(kept), []
    for call in reversed(calls):
        names = dict.fromkeys((*call.inputs, *call.outputs))
        marked.append(replace(call, last=tuple(name for name in names if name and name not in seen)))
        seen |= set(names)
    return marked[::-1]


def _constants(calls: Sequence[_Call], index: Index) -> set[str]:
    return {name for call in calls for name in call.inputs if name in index.initializers}


def _learned(calls: Sequence[_Call], index: Index) -> set[str]:
    """The constants that are weights: of layers, of what is added to a product, of normalisations, of tables."""
    products = {call.outputs[0] for call in calls if call.operator in LAYERS}
    found: set[str] = set()
    for call in calls:
        places: Sequence[int] = _LEARNED.get(call.operator, ())
        if call.operator == "Add" and products & set(call.inputs):
            places = (0, 1)
        found |= {call.inputs[i] for i in places if i < len(call.inputs) and call.inputs[i] in index.initializers}
    return {name for name in found if index.array(name).dtype == np.float32 and index.array(name).ndim}
