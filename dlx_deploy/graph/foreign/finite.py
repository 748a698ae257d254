"""Weights that are no numbers: a network that diverged, or a file that was damaged, answers nothing of use."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import WEIGHTED, Index
from dlx_deploy.runtime.words import line

__all__ = ["refuse_infinite"]

_LEARNED = (*WEIGHTED, "BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
"""What has weights; elsewhere an infinity may be meant, as in the masks of attention."""


def refuse_infinite(model: ModelProto, name: str) -> None:
    """Nothing, unless a weight of ``model``, which ONNX's checker passes, is infinite or NaN as it is in the file.

    Raises:
        ConfigError: the first such tensor, who reads it, and how many of its values are.
    """
    constants = _constants(model)
    for node in model.graph.node:
        for tensor in node.input[1:] if node.op_type in _LEARNED else ():
            if tensor in constants:
                _check(constants[tensor], tensor, node, name)


def _constants(model: ModelProto) -> dict[str, TensorProto]:
    held = {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    return held | Index(model).initializers


def _check(tensor: TensorProto, called: str, node: NodeProto, name: str) -> None:
    values = numpy_helper.to_array(tensor)
    if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
        return
    wrong = values[~finite]
    raise ConfigError(
        f"{name}: {line(called)!r}, which {line(node.name or node.output[0])!r} ({node.op_type}) reads, has "
        f"{wrong.size} of {values.size} values that are no finite numbers (the first: {wrong[0]}); rule: finite "
        "weights; export the network again, from a checkpoint that did not diverge"
    )
