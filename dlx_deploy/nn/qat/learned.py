"""From a plan to the network that learns it, and back: a float32 graph, and a plan for the one writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from msgspec.structs import replace
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.quantization.plan import QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.planning import integer_limits, weight_levels, with_room_for_bias
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.nn.qat.graph_network import Fakes, GraphNetwork
from dlx_deploy.nn.qat.quantizers import FakeQuantizer

__all__ = ["SOURCE", "Learning", "learned_model", "learned_plan", "undivided"]

SOURCE = "lsq"
"""What a plan says made such numbers."""


@dataclass(frozen=True)
class Learning:
    """A float32 ``model``, where ``setting`` puts its integers, and the ``plan`` that their scales begin with."""

    model: ModelProto
    setting: Setting
    plan: QuantizationPlan

    def network(self, padding: int = 0) -> GraphNetwork:
        """What learns: ``model`` with a fake quantizer wherever the writer puts Q/DQ.

        Raises:
            StageFailed: as ``GraphNetwork``.
        """
        return GraphNetwork(self.model, self._fakes(), padding)

    def written(self, model: ModelProto, plan: QuantizationPlan) -> ModelProto:
        """``model`` and ``plan`` as the one writer puts them together, in float32 elsewhere."""
        return self.setting.write(State(model, plan, Ranges(), SOURCE))

    def projected(self, network: GraphNetwork) -> Callable[[nn.Module, int], None]:
        """What brings scales back between their limits after an update, and zeros among weights back to zero."""
        zeros = {
            key: values == 0 for key, values in network.learned.items() if values.ndim > 1 and bool((values == 0).any())
        }

        def project(trained: nn.Module, step: int) -> None:
            for module in trained.modules():
                if isinstance(module, FakeQuantizer):
                    module.project()
                elif isinstance(module, GraphNetwork):
                    for key, zero in zeros.items():
                        _clear(module.learned[key], zero)

        return project

    def _fakes(self) -> Fakes:
        placement, scheme = self.setting.placement, self.setting.scheme
        tensors: dict[str, FakeQuantizer] = {}
        for name in placement.own:
            entry = self.plan.tensors[name]
            zero, (low, high) = entry.zero_point or 0, integer_limits(scheme, entry.bits)
            tensors[name] = FakeQuantizer(_scale(entry), (low - zero, high - zero), half=scheme.half_scales)
        for name in placement.pairs:
            tensors[name] = tensors[_root(self.plan, name)]
        weights: dict[str, FakeQuantizer] = {}
        for place in placement.weights:
            line = self.plan.layers[place.layers[0]]
            levels = weight_levels(scheme, line)
            scales, ends = torch.tensor(line.scales, dtype=torch.float32), (-levels, levels)
            weights |= dict.fromkeys(place.layers, FakeQuantizer(scales, ends, place.axis, scheme.half_scales))
        readers = {name: pair.readers for name, pair in placement.pairs.items()}
        return Fakes(
            tensors, weights, readers, placement.absorbed, placement.gates, whole_biases=scheme.biases == "int32"
        )


def learned_model(model: ModelProto, network: GraphNetwork) -> ModelProto:
    """A copy of ``model`` with the weights that ``network`` has learned."""
    model = load(model)
    index = Index(model)
    for name, values in network.arrays():
        index.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return model


def learned_plan(learning: Learning, network: GraphNetwork) -> QuantizationPlan:
    """The plan with the scales that ``network`` has learned; zero points stay.

    A scale of weights is as large as the bias of its layer needs, which int32 counts in units of it.
    """
    plan, tensors, layers = learning.plan, dict(learning.plan.tensors), dict(learning.plan.layers)
    for name, entry in tensors.items():
        quantizer = network.quantizer("tensor", name)
        if quantizer is not None and not entry.like:
            tensors[name] = replace(entry, scale=float(_values(quantizer)), source=SOURCE)
    plan, index = replace(plan, tensors=tensors), Index(learned_model(learning.model, network))
    nodes = {node.name: node for node in index.model.graph.node}
    for weights in learning.setting.placement.weights:
        quantizer = network.quantizer("layer", weights.layers[0])
        assert quantizer is not None
        scales = _values(quantizer)
        for name in weights.layers:
            scales = with_room_for_bias(index, learning.setting.scheme, nodes[name], plan, scales)
        before = plan.layers[weights.layers[0]]
        learned = replace(before, source=SOURCE, scales=tuple(float(scale) for scale in scales))
        layers.update(dict.fromkeys(weights.layers, learned))
    return undivided(replace(plan, layers=layers))


def undivided(plan: QuantizationPlan) -> QuantizationPlan:
    """``plan`` for a model that is divided already."""
    return replace(plan, divided={})


def _values(quantizer: FakeQuantizer) -> np.ndarray:
    with torch.no_grad():
        values: np.ndarray = quantizer.scale().cpu().numpy()
    return values


def _scale(entry: TensorPlan) -> Tensor:
    return torch.tensor(entry.scale, dtype=torch.float32)


def _root(plan: QuantizationPlan, name: str) -> str:
    """The tensor whose scale ``name`` has."""
    while plan.tensors[name].like:
        name = plan.tensors[name].like
    return name


def _clear(parameter: Tensor, zero: Tensor) -> None:
    with torch.no_grad():
        parameter.masked_fill_(zero.to(parameter.device), 0.0)
