"""A graph at a newer operator set: what exporters of years ago wrote, for what quantization and parsers read today."""

from __future__ import annotations

import logging

import onnx
from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import opset
from dlx_deploy.targets.opsets import OLDEST

__all__ = ["raised"]

_STOPS = (17, 13)
"""Where a converter that cannot go all the way may still reach: LayerNormalization came with 17."""

log = logging.getLogger(__name__)


def raised(model: ModelProto, target: int) -> ModelProto:
    """``model`` at opset ``target``, or as near to it as onnx's converter comes; one that is newer is left alone.

    Raises:
        StageFailed: it cannot even be brought to the oldest that is quantized.
    """
    source = opset(model)
    if source >= target:
        return model
    trouble: Exception | None = None
    for version in (target, *(stop for stop in _STOPS if source < stop < target)):
        try:
            return _at(model, version)
        except Exception as e:  # the converter raises RuntimeError, IndexError and its own, as it comes
            trouble = trouble or e
            log.debug("opset %d to %d: %s", source, version, e)
    if source >= OLDEST:
        log.warning("it stays at opset %d: onnx's converter cannot bring it to %d (%s)", source, target, trouble)
        return model
    raise StageFailed(
        f"onnx's converter cannot bring opset {source} to {target}: {trouble}; export it with opset {OLDEST} or newer"
    ) from trouble


def _at(model: ModelProto, version: int) -> ModelProto:
    converted: ModelProto = onnx.version_converter.convert_version(model, version)
    onnx.shape_inference.infer_shapes(converted, strict_mode=True, data_prop=True)
    return converted
