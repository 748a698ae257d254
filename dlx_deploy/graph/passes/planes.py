"""Graphs that read uint8 images, NHWC, given the border of those who feed float planes and want probabilities.

NVIDIA's pipelines of video hand a network float32[N, C, H, W], 0..255 where nothing scales them, and take its outputs
for probabilities. Only the border moves: what lies between is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, attribute, opset
from dlx_deploy.graph.passes.base import Pass

__all__ = ["PLANES", "PROBABILITIES", "planar_passes"]

PLANES = "planes"
"""The input: float32[N, C, H, W], 0..255."""
PROBABILITIES = "probabilities"
"""The output: the softmax over axis 1 of what the graph gave."""
_NCHW, _NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_SOFTMAX_OPSET = 13
"""Where ``Softmax`` began to mean one axis alone."""


def planar_passes() -> tuple[Pass, ...]:
    """Float planes in, probabilities out; for a graph with one input of images and one output of logits."""
    return (
        Pass("planes", _with_planes, requires=_no_images, ensures=_invalid),
        Pass("probabilities", _with_probabilities, requires=_no_softmax, ensures=_invalid),
    )


def _no_images(model: ModelProto) -> Sequence[str]:
    inputs = model.graph.input
    types = [value.type.tensor_type for value in inputs]
    if [(kind.elem_type, len(kind.shape.dim)) for kind in types] == [(TensorProto.UINT8, 4)]:
        return ()
    return (f"it reads {', '.join(value.name for value in inputs)}; rule: one input, uint8[N, H, W, C]",)


def _no_softmax(model: ModelProto) -> Sequence[str]:
    found = [f"it has {len(model.graph.output)} outputs; rule: one"] if len(model.graph.output) != 1 else []
    if opset(model) < _SOFTMAX_OPSET:
        found.append(f"its opset is {opset(model)}; rule: at least {_SOFTMAX_OPSET}")
    return found


def _invalid(model: ModelProto) -> Sequence[str]:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as e:
        return (str(e),)
    return ()


def _with_planes(model: ModelProto) -> ModelProto:
    """The input becomes ``PLANES``; each cast of the images, and each transpose of a cast, gives what it gave before.

    Raises:
        ConfigError: something else than a cast reads the images.
    """
    graph, index = model.graph, Index(model)
    images = graph.input[0]
    for reader in index.readers(images.name):
        if reader.op_type != "Cast":
            raise ConfigError(f"the images are read by a node {reader.op_type}; rule: by casts to float alone")
    spent: list[NodeProto] = []
    for cast in index.readers(images.name):
        spent += _read_planes(model, cast, index.readers(cast.output[0]))
    for node in spent:
        graph.node.remove(node)
    n, height, width, channels = images.type.tensor_type.shape.dim
    sizes = [n.dim_param or n.dim_value, channels.dim_value, height.dim_value, width.dim_value]
    del graph.value_info[:]  # of tensors that are others now; whoever wants shapes infers them
    images.CopyFrom(helper.make_tensor_value_info(PLANES, TensorProto.FLOAT, sizes))
    return model


def _read_planes(model: ModelProto, cast: NodeProto, readers: Sequence[NodeProto]) -> list[NodeProto]:
    """Let ``cast`` read planes; gives back the nodes that this leaves without a use."""
    to_planes = [node for node in readers if node.op_type == "Transpose" and attribute(node, "perm") == list(_NCHW)]
    cast.input[0] = PLANES
    for node in to_planes:
        _rename(model, node.output[0], f"{cast.output[0]}/planes")
    if len(to_planes) == len(readers) and to_planes:
        cast.output[0] = f"{cast.output[0]}/planes"
    else:
        _turn_back(model, cast)
    return to_planes


def _turn_back(model: ModelProto, cast: NodeProto) -> None:
    """NHWC again, for those who read ``cast`` so."""
    name = cast.output[0]
    cast.output[0] = f"{name}/planes"
    node = helper.make_node("Transpose", [cast.output[0]], [name], name=f"{name}/Transpose", perm=list(_NHWC))
    model.graph.node.insert(list(model.graph.node).index(cast) + 1, node)


def _rename(model: ModelProto, old: str, new: str) -> None:
    """Whoever reads ``old`` reads ``new``."""
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _with_probabilities(model: ModelProto) -> ModelProto:
    """A softmax over axis 1 behind the only output, float32."""
    (logits,) = model.graph.output
    model.graph.node.append(
        helper.make_node("Softmax", [logits.name], [PROBABILITIES], name=f"{PROBABILITIES}/Softmax", axis=1)
    )
    logits.name = PROBABILITIES
    return model
