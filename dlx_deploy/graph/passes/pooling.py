"""A mean over an image's height and width as pooling."""

from __future__ import annotations

import onnx
from onnx import ModelProto, helper

from dlx_deploy.graph.model import Index, infer, int_attribute
from dlx_deploy.graph.passes.base import Pass

__all__ = ["POOL_GLOBALLY"]


def _pool_globally(model: ModelProto) -> ModelProto:
    """A mean over height and width as GlobalAveragePool, which runtimes have faster and INT8 kernels for."""
    shapes, initializers = infer(model), Index(model).initializers
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in initializers:
            continue
        x, out = node.input[0], node.output[0]
        axes = sorted(int(a) % 4 for a in onnx.numpy_helper.to_array(initializers[node.input[1]]).reshape(-1))
        if x not in shapes or len(shapes[x].shape) != 4 or axes != [2, 3]:
            continue
        keep = bool(int_attribute(node, "keepdims", 1))
        pooled = out if keep else f"{out}/pooled"
        name = node.name.replace("ReduceMean", "")
        new = [helper.make_node("GlobalAveragePool", [x], [pooled], name=f"{name}GlobalAveragePool")]
        if not keep:
            new.append(helper.make_node("Flatten", [pooled], [out], name=f"{name}Flatten", axis=1))
        model.graph.node.remove(node)
        for extra in reversed(new):
            model.graph.node.insert(position, extra)
    return model


POOL_GLOBALLY = Pass("pool-globally", _pool_globally)
