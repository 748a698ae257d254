"""The quantization plan as a value: what precision each tensor and layer has, with which numbers, and where from.

``plan.json`` has a line for each tensor and layer. It can be edited and given back, whole or in part: what it leaves
out is calibrated and chosen as without a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization.lines import json_lines
from dlx_deploy.runtime.schemas import newer_schema

__all__ = [
    "SCHEMA",
    "ActivationBits",
    "BlockSize",
    "Divided",
    "LayerPlan",
    "Precision",
    "QuantizationPlan",
    "TensorPlan",
    "WeightBits",
    "plan_bytes",
    "read_plan",
]

SCHEMA = 1
MAX_BYTES = 256 << 20
"""A line of scales for each of thousands of layers is far smaller."""

Precision = Literal["int8", "int4", "fp8", "fp16", "bf16", "fp32"]
WeightBits = Literal[4, 8]
ActivationBits = Literal[4, 8]
BlockSize = Literal[32, 64, 128]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line of the plan."""


class TensorPlan(_Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An activation. With the ``precision`` fp32 it has no Q/DQ pair; else it has one, of the scheme's type.

    ``value = scale * (integer - zero_point)``. Without a ``scale`` it is calibrated, by the method in ``source``.
    ``source``: a calibration method, or whatever else made the numbers. ``like``: the tensor that it shares them with.
    ``readers``: the nodes that read it in int8, where not all do that could; the others read it as it is.
    ``bits``: of its integers, stored as those of 8; 4: from -8 to 7, or 0 to 15. ``None``: 8 beside a ``scale``, else
    ``quantize.activation_bits``.
    """

    precision: Literal["int8", "fp32"] = "int8"
    scale: float | None = None
    zero_point: int | None = None
    source: str = ""
    like: str = ""
    readers: tuple[str, ...] = ()
    bits: ActivationBits | None = None


class LayerPlan(_Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A layer, by the name of its node. ``scales``: those of its weights, one for each output channel.

    Without them each is that of the channel's largest magnitude. ``source``: ``max``, or whatever else made them.
    ``weight_bits``: of the weights' integers, stored as int8; 4: from -7 to 7. ``None``: 8 beside ``scales``, else
    ``quantize.weight_bits``. ``int4``: weights alone, of which each ``block_size`` inputs of a channel have a scale,
    found as ``source`` says: ``max`` or ``mse`` (``blocks``).
    """

    precision: Precision = "int8"
    source: str = ""
    scales: tuple[float, ...] = ()
    weight_bits: WeightBits | None = None
    block_size: BlockSize | None = None


class Divided(_Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tensor whose channels are divided where they are made, and multiplied by as much where they are read."""

    by: tuple[float, ...]


class QuantizationPlan(_Entry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``plan.json``. ``scheme``: what its numbers are for (``graph.quantization.scheme``); empty without any.

    ``divided``: tensors between layers whose numbers hold for divided channels (``graph.passes.seams``).
    """

    schema: Annotated[int, msgspec.Meta(ge=1)]
    scheme: str = ""
    tensors: Mapping[str, TensorPlan] = msgspec.field(default_factory=dict)
    layers: Mapping[str, LayerPlan] = msgspec.field(default_factory=dict)
    divided: Mapping[str, Divided] = msgspec.field(default_factory=dict)

    def layers_at(self, *precisions: Precision) -> list[str]:
        """The layers that have one of ``precisions``."""
        return [name for name, layer in self.layers.items() if layer.precision in precisions]


def plan_bytes(plan: QuantizationPlan) -> bytes:
    """The plan as JSON, a line for each tensor and layer; equal plans give equal bytes."""
    head: dict[str, str | int] = {"schema": plan.schema, **({"scheme": plan.scheme} if plan.scheme else {})}
    divided = {"divided": plan.divided} if plan.divided else {}
    return json_lines(head, {"tensors": plan.tensors, "layers": plan.layers, **divided})


def read_plan(path: Path) -> QuantizationPlan:
    """The plan in ``path``, whose form alone has been checked.

    Raises:
        ConfigError: the file cannot be read, is no plan, or is of a newer schema.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; rule: a plan has at most {MAX_BYTES:,}")
        content = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); quantize.plan names a plan.json") from e
    try:
        schema = msgspec.json.decode(content, type=_Schema).schema
        if why := newer_schema(schema, SCHEMA):
            raise ConfigError(f"{path}: {why}")
        return msgspec.json.decode(content, type=QuantizationPlan)
    except msgspec.MsgspecError as e:
        raise ConfigError(f"{path}: no quantization plan: {e}; see docs/quantization.md") from e


class _Schema(msgspec.Struct):
    schema: int
