"""INT4 weights of some layers beside INT8 of others: what a plan says of the former is written behind the latter.

The two need nothing of each other. A layer of INT4 weights computes in floating point, so to what writes INT8 it is a
floating-point layer, and to what writes INT4 all others are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from onnx import ModelProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.quantization.fit import check_layers
from dlx_deploy.graph.quantization.layers import excluded, quantizable
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.plan import SCHEMA, LayerPlan, QuantizationPlan
from dlx_deploy.graph.quantization.planning import make_plan
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.request import QuantizationRequest
from dlx_deploy.graph.quantization.scheme import BLOCKS
from dlx_deploy.graph.quantization.writer import write_qdq

__all__ = ["Beside", "apart"]

_BLOCK_SIZE = 32
"""Where a line says none."""


class Beside(msgspec.Struct, frozen=True):
    """The lines of the layers whose weights are INT4 in a graph of INT8; ``half``: scales are numbers of float16."""

    lines: Mapping[str, LayerPlan]
    half: bool = False

    def planned(self, model: ModelProto, patterns: tuple[str, ...]) -> tuple[tuple[Pass, ...], dict[str, LayerPlan]]:
        """What writes them into ``model``, float32 as it came, once INT8 is in it, and their lines in full; nothing of
        none. ``patterns``: ``quantize.exclude``.

        Raises:
            ConfigError: a layer cannot be INT4; it is named, with the rule.
        """
        if not self.lines:
            return (), {}
        scheme = msgspec.structs.replace(BLOCKS, block_size=_BLOCK_SIZE, half_scales=self.half)
        given = QuantizationPlan(schema=SCHEMA, layers=dict(self.lines))
        check_layers(model, given, scheme, (), excluded(model, patterns))
        index = Index(model)
        others = {node.name for node in quantizable(index, set())} - self.lines.keys()
        placement = place(model, scheme.placement, quantizable(index, others), (), others)
        plan = make_plan(model, scheme, placement, Ranges(), given, "minmax")
        write = Pass("int4", lambda graph: write_qdq(graph, scheme, placement, plan))
        return (write,), {name: plan.layers[name] for name in self.lines}


def apart(request: QuantizationRequest) -> tuple[QuantizationRequest, Beside]:
    """``request`` for INT8 with the layers that its plan puts in INT4 in floating point, and what becomes of these;
    ``request`` itself where it is for something else."""
    scheme, given = request.scheme, request.given
    lines = {name: line for name, line in given.layers.items() if line.precision == "int4"}
    if scheme is None or scheme.precision != "int8" or not lines:
        return request, Beside({})
    floating = LayerPlan(precision="fp16" if request.half else "fp32")
    rest = {name: floating if name in lines else line for name, line in given.layers.items()}
    return replace(request, given=msgspec.structs.replace(given, layers=rest)), Beside(lines, request.half)
