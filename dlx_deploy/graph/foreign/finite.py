"""Weights that are no numbers: a network that diverged, or a file that was damaged, answers nothing of use."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import WEIGHTED, Index
from dlx_deploy.runtime.words import line

__all__ = ["refuse_infinite"]

_LEARNED = (*WEIGHTED, "BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
"""What has weights; elsewhere an infinity may be meant, as in the masks of attention. NaN is meant nowhere."""
_BEHIND = ("Cast", "Identity", "Reshape", "Transpose")
"""What hands a weight on as it is: FP16 files cast theirs."""


def refuse_infinite(model: ModelProto, name: str) -> None:
    """Nothing, unless a weight of ``model``, which ONNX's checker passes, is infinite or NaN as it is in the file.

    Raises:
        ConfigError: the first such tensor, who reads it, and how many of its values are.
    """
    constants, behind = _constants(model), dict[str, str]()
    for node in model.graph.node:
        for i, tensor in enumerate(node.input):
            source = behind.get(tensor, tensor)
            if source in constants:
                _check(constants[source], source, node, name, infinite=bool(i) and node.op_type in _LEARNED)
        if node.op_type in _BEHIND and (source := behind.get(node.input[0], node.input[0])) in constants:
            behind[node.output[0]] = source


def _constants(model: ModelProto) -> dict[str, TensorProto]:
    held = {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    return held | Index(model).initializers


def _check(tensor: TensorProto, called: str, node: NodeProto, name: str, infinite: bool) -> None:
    """``infinite``: infinities are refused too."""
    values = numpy_helper.to_array(tensor)
    if values.dtype.kind == "V":  # bfloat16, and numbers of 8 bits
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        return
    wrong = values[~np.isfinite(values) if infinite else np.isnan(values)]
    if not wrong.size:
        return
    raise ConfigError(
        f"{name}: {line(called)!r}, which {line(node.name or node.output[0])!r} ({node.op_type}) reads, has "
        f"{wrong.size} of {values.size} values that are no finite numbers (the first: {wrong[0]}); rule: finite "
        "weights; export the network again, from a checkpoint that did not diverge"
    )
