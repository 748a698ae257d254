"""A graph that was exported for one batch size, for any: what its constants say of the batch is left open."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.graph.model import Index, attribute

__all__ = ["open_batch"]


def open_batch(model: ModelProto, before: int, after: int | None) -> ModelProto:
    """``model``, of batch size ``before`` (0: any), for ``after`` (``None``: any); the input's shape says so already.

    Reshapes to a constant shape that begins with ``before`` take what comes as their first size. That this is the
    batch is a guess: whoever calls this must ask the result for several rows and compare.
    """
    if not before or before == after:
        return model
    index = Index(model)
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        name = node.input[1]
        held = _held(index, constants, name)
        if held is None or not held.size or held.flat[0] != before:
            continue
        opened = held.astype(np.int64).reshape(-1).copy()
        opened[0] = 0 if -1 in opened[1:] else -1  # 0: as the input has it
        new = f"{name}/any-batch"
        if new not in index.initializers:
            tensor = numpy_helper.from_array(opened, new)
            model.graph.initializer.append(tensor)
            index.initializers[new] = tensor
        node.input[1] = new
    return model


def _held(index: Index, constants: Mapping[str, NodeProto], name: str) -> NDArray[np.generic] | None:
    """The values of a constant, if the tensor is one."""
    if name in index.initializers:
        return index.array(name)
    held = attribute(constants[name], "value") if name in constants else None
    return np.asarray(numpy_helper.to_array(held)) if isinstance(held, TensorProto) else None
