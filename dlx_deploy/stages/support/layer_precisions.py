"""``layers.json``: which precision a graph asks for, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.stages.support.requested import Half, Precision

__all__ = ["LayerPrecisions", "read_precisions"]

SCHEMA = 1


class LayerPrecisions(msgspec.Struct, frozen=True, kw_only=True):
    """``layers.json``: what the graph asks for.

    ``precision`` is the lowest, ``elsewhere`` what the rest is in. ``strongly_typed`` is false where the parser's opset
    has no FP16 Q/DQ: the rest is then FP32 in the graph, and ``elsewhere`` is what the builder may choose.
    """

    schema: int = SCHEMA
    precision: Precision
    elsewhere: Half
    strongly_typed: bool = True
    layers: Mapping[str, str]


def read_precisions(path: Path) -> LayerPrecisions:
    """What ``layers.json`` says."""
    return msgspec.json.decode(path.read_bytes(), type=LayerPrecisions)
