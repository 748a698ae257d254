"""A network on its way to integers, as a value, and what turns it into the graph that ships."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.model import load
from dlx_deploy.graph.passes.tidy import tidy
from dlx_deploy.graph.quantization.kit.biases import add_to_biases
from dlx_deploy.graph.quantization.observers import METHODS, RangeMethod
from dlx_deploy.graph.quantization.placement import Placement
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.planning import asked_methods, make_plan
from dlx_deploy.graph.quantization.ranges import Ranges, collect_ranges, rows_in_one_pass
from dlx_deploy.graph.quantization.rounding import Rounding, nearest
from dlx_deploy.graph.quantization.scheme import Scheme
from dlx_deploy.graph.quantization.writer import write_qdq
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent

__all__ = ["Setting", "State", "Step"]


@dataclass(frozen=True)
class State:
    """``model``: float32; it computes what the network does. ``plan``: the numbers that its integers have, which rest
    on ``ranges`` by ``method``.

    ``divided``: tensor → float32[channels], what it is divided by in ``model``, compared with the graph that was given
    (``graph.passes.seams``). ``rounded``: layer → int8, the integers of its weights, where they are not the nearest.
    ``biases``: layer → float32[channels], what is added to its bias.
    """

    model: ModelProto
    plan: QuantizationPlan
    ranges: Ranges
    method: str
    divided: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    biases: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What no step changes: the form of the integers, where they are, and the plan that was given.

    ``fitted``: the calibration inputs that steps may look at.
    """

    scheme: Scheme
    placement: Placement
    given: QuantizationPlan
    fitted: Samples
    methods: Mapping[str, RangeMethod] = field(default_factory=lambda: METHODS)
    rounding: Rounding = nearest

    def write(self, state: State) -> ModelProto:
        """The graph of ``state`` with Q/DQ: what ships, but for half precision elsewhere."""
        return tidy(self.write_int8(load(state.model), state))

    def write_int8(self, model: ModelProto, state: State) -> ModelProto:
        """``model``, the graph of ``state``, which is spent, with Q/DQ."""
        model = add_to_biases(model, state.biases)
        return write_qdq(model, self.scheme, self.placement, state.plan, self._chosen(state.rounded))

    def measured(self, model: ModelProto, method: str, progress: Progress = silent) -> Ranges:
        """The ranges of ``model``'s tensors by ``method``; without rows where the plan that was given says them all.

        In one pass, unlike those of a build that tries nothing, which see whole blocks as ONNX Runtime's quantizer
        does.
        """
        asked = asked_methods(self.placement, self.given, method)
        if not asked:
            return Ranges()
        return collect_ranges(
            model,
            self.fitted,
            asked,
            symmetric=self.scheme.symmetric,
            largest_batch=rows_in_one_pass(model, asked),
            methods=self.methods,
            progress=progress,
        )

    def has_measured(self, state: State, method: str) -> bool:
        """Whether the ranges by ``method`` are known of the very model of ``state``."""
        asked = asked_methods(self.placement, self.given, method)
        return all({*methods} <= {*state.ranges.tensors.get(name, ())} for name, methods in asked.items())

    def planned(self, model: ModelProto, ranges: Ranges, method: str) -> QuantizationPlan:
        """The plan that follows."""
        return make_plan(model, self.scheme, self.placement, ranges, self.given, method)

    def _chosen(self, rounded: Mapping[str, NDArray[np.int8]]) -> Rounding:
        def chosen(
            layer: str, weight: NDArray[np.float32], scale: NDArray[np.float32], levels: int
        ) -> NDArray[np.int8]:
            return rounded[layer] if layer in rounded else self.rounding(layer, weight, scale, levels)

        return chosen


@dataclass(frozen=True)
class Step:
    """One way to better integers: ``propose`` gives another state, which may not be better, or nothing."""

    name: str
    propose: Callable[[State, Setting, Progress], State | None]
