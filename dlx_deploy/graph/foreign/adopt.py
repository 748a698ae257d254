"""A graph that others wrote as one of ours: uint8 NHWC images in, named float32 outputs, the target's opset; no torch.

Each step is a pass. What the result answers is held against the original afterwards (``foreign.parity``): converters
and folding are others' work, and nothing here is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.batch import open_batch
from dlx_deploy.graph.foreign.raising import raised
from dlx_deploy.graph.foreign.usable import Layout, Picture
from dlx_deploy.graph.foreign.wire import Value
from dlx_deploy.graph.model import WEIGHTED, Index, int_attribute
from dlx_deploy.graph.passes.base import Pass, run_passes
from dlx_deploy.graph.passes.fold import batch_norms_folded, drop_unread
from dlx_deploy.graph.passes.opset import to_opset
from dlx_deploy.graph.passes.pooling import POOL_GLOBALLY
from dlx_deploy.graph.passes.safe import SAFE_FORMS
from dlx_deploy.graph.passes.tidy import TIDY
from dlx_deploy.graph.samples import Arrays
from dlx_deploy.runtime.untyped import Array
from dlx_deploy.runtime.words import said

__all__ = ["Adoption", "Border", "Front", "ImageBorder", "adopted", "ends_in_softmax", "load_original"]

_BATCH = "batch"
_FLOW = ("If", "Loop", "Scan")


@dataclass(frozen=True)
class Front:
    """Images uint8[N, height, width, channels], NHWC, 0..255, and what a network reads of each: pixel * scale + shift.

    ``scale`` and ``shift``: float32[channels].
    """

    height: int
    width: int
    channels: int
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    @property
    def picture(self) -> Picture:
        """The size alone."""
        return Picture(self.height, self.width, self.channels)


class Border(Protocol):
    """What a package feeds, before a network that came as a graph: bound to that network's own inputs."""

    @property
    def first(self) -> Value:
        """The network's own input that says its batch."""

    def opened(self, model: ModelProto, batch: int | str) -> None:
        """Give the network's inputs the shapes that the package feeds; weights are no inputs."""

    def put_before(self, model: ModelProto, name: str, batch: int | str) -> None:
        """Make them of the one input ``name``."""

    def feed(self, read: Array) -> Arrays:
        """What the network reads of ``read``, what a bare network of ours reads, by the names of its inputs."""


@dataclass(frozen=True)
class ImageBorder:
    """``front`` before the network that reads ``images`` in ``layout``."""

    front: Front
    images: Value
    layout: Layout

    @property
    def first(self) -> Value:
        """The network's own input that says its batch."""
        return self.images

    def opened(self, model: ModelProto, batch: int | str) -> None:
        """Give the network's input the shape that the package feeds; weights are no inputs."""
        front = self.front
        sizes = [front.height, front.width]
        inner = [front.channels, *sizes] if self.layout == "NCHW" else [*sizes, front.channels]
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info(self.images.name, TensorProto.FLOAT, [batch, *inner]))

    def put_before(self, model: ModelProto, name: str, batch: int | str) -> None:
        """uint8[N, H, W, C], NHWC, 0..255 in: cast first, as TensorRT accepts uint8 only as the input of a cast."""
        graph, front, planes = model.graph, self.front, self.layout == "NCHW"
        shape = (-1, 1, 1) if planes else (-1,)
        nodes = [helper.make_node("Cast", [name], ["front/float"], name="preprocess/Cast", to=TensorProto.FLOAT)]
        if planes:
            turn = helper.make_node("Transpose", ["front/float"], ["front/planes"], name="preprocess/Transpose")
            turn.attribute.append(helper.make_attribute("perm", [0, 3, 1, 2]))
            nodes.append(turn)
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(values, np.float32).reshape(shape), f"front/{kind}")
            for kind, values in (("scale", front.scale), ("shift", front.shift))
        )
        before = nodes[-1].output[0]
        nodes.append(helper.make_node("Mul", [before, "front/scale"], ["front/scaled"], name="preprocess/Mul"))
        last = ["front/scaled", "front/shift"]
        nodes.append(helper.make_node("Add", last, [self.images.name], name="preprocess/Add"))
        dims = [batch, front.height, front.width, front.channels]
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, dims))
        for node in reversed(nodes):
            graph.node.insert(0, node)

    def feed(self, read: Array) -> Arrays:
        """What the network reads of ``read``, float32[N, C, H, W]."""
        planes = read if self.layout == "NCHW" else np.ascontiguousarray(read.transpose(0, 2, 3, 1))
        return {self.images.name: planes}


@dataclass(frozen=True)
class Adoption:
    """What a graph must look like from outside.

    ``input``: the name of the one input here. ``answer``: the model's output that counts, and ``output`` and ``dims``:
    its name and sizes here, behind the batch. ``order``: for each class its place in the model's answer; empty: as they
    are. ``batch``: fixed, or ``None`` where any will do.
    """

    border: Border
    input: str
    answer: str
    output: str
    dims: tuple[int | None, ...]
    opset: int
    order: tuple[int, ...] = ()
    batch: int | None = None


def load_original(path: Path, folder: Path | None) -> ModelProto:
    """The model in ``path`` with its weights, those from files of ``folder`` included.

    Raises:
        ConfigError: a file is not what the model says of it.
    """
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as e:
        raise ConfigError(f"{path}: no ONNX model ({said(e)}); copy or export it again") from e
    try:
        onnx.load_external_data_for_model(model, str(folder or path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        raise ConfigError(f"{path}: its weights cannot be read ({e}); export it again") from e
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")  # equal weights are equal bytes, wherever they came from
    return model


def adopted(model: ModelProto, wanted: Adoption, origin: str) -> ModelProto:
    """``model`` as ``wanted`` describes it; ``model`` is spent.

    Raises:
        ConfigError, StageFailed: control flow that does not fold, or what a pass says.
    """
    passes = (
        Pass("inline", _inlined),
        Pass("name-ends", lambda model: _with_ends(model, wanted)),
        Pass("raise-opset", lambda model: raised(model, wanted.opset)),
        Pass("fold-constants", _folded),
        Pass("one-answer", lambda model: _one_answer(model, wanted)),
        Pass("front", lambda model: _fronted(model, wanted)),
        Pass("fold-norms", batch_norms_folded),
        Pass("own-names", _named, ensures=_alike),
        POOL_GLOBALLY,
        to_opset(wanted.opset),
        SAFE_FORMS,
        TIDY,
    )
    return run_passes(model, passes, origin)


def ends_in_softmax(model: ModelProto, answer: str) -> bool:
    """Whether the output ``answer`` is a softmax over its last axis, or over all but the batch."""
    node = _behind_identities(Index(model), answer)
    return node is not None and node.op_type == "Softmax" and int_attribute(node, "axis", -1) in (-1, 1)


def _inlined(model: ModelProto) -> ModelProto:
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model) if model.functions else model


def _with_ends(model: ModelProto, wanted: Adoption) -> ModelProto:
    """The inputs as ``border`` has them, and no shapes that were said of another batch; weights are no inputs."""
    graph, dims = model.graph, wanted.border.first.dims
    wanted.border.opened(model, wanted.batch or _BATCH)
    del graph.value_info[:], model.metadata_props[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    if model.ir_version < 4:
        model.ir_version = 4  # before, weights had to be inputs
    return open_batch(model, (dims and dims[0]) or 0, wanted.batch)


def _folded(model: ModelProto) -> ModelProto:
    """What is the same for every image computed once; identities and dead ends left out.

    Raises:
        ConfigError: control flow is left.
    """
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from onnxscript import optimizer

    folded = onnx_ir.from_proto(optimizer.optimize(model))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(folded)
    result = onnx_ir.to_proto(folded)
    flow = [node for node in result.graph.node if node.op_type in _FLOW]
    if flow:
        raise ConfigError(
            f"it has control flow ({flow[0].op_type}, node {flow[0].name!r}) that depends on its input; rule: the same "
            "operators for every image; export it with the branch or the number of steps fixed"
        )
    return result


def _one_answer(model: ModelProto, wanted: Adoption) -> ModelProto:
    """The one output, as logits: without a last softmax, [N, classes] alone, classes in the data's order."""
    graph, index = model.graph, Index(model)
    name = wanted.answer
    last = _behind_identities(index, name)
    if ends_in_softmax(model, name) and last is not None:
        name = last.input[0]
    del graph.output[:]
    if wanted.order:
        order = numpy_helper.from_array(np.asarray(wanted.order, np.int64), f"{wanted.output}.order")
        graph.initializer.append(order)
        node = helper.make_node("Gather", [name, order.name], [f"{name}/ordered"], name="order/Gather", axis=1)
        graph.node.append(node)
        name = node.output[0]
    end = _flat(model, name, wanted)
    dims = [wanted.batch or _BATCH, *wanted.dims]
    graph.output.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, dims))
    drop_unread(model)
    return model


def _flat(model: ModelProto, name: str, wanted: Adoption) -> str:
    """The name of the output: ``name`` in the sizes that are wanted."""
    graph = model.graph
    made = Index(model).producer.get(name)
    if _rank(model, name) == 1 + len(wanted.dims) and made is not None:
        for node in graph.node:
            node.input[:] = [wanted.output if n == name else n for n in node.input]
        made.output[:] = [wanted.output if n == name else n for n in made.output]
    elif len(wanted.dims) == 1:  # pooled answers are [N, classes, 1, 1]
        graph.node.append(helper.make_node("Flatten", [name], [wanted.output], name=f"{wanted.output}/Flatten", axis=1))
    else:
        graph.node.append(helper.make_node("Identity", [name], [wanted.output], name=f"{wanted.output}/Identity"))
    return wanted.output


def _rank(model: ModelProto, name: str) -> int:
    """How many axes a tensor has; 0 where inference does not know."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.output)}
    return len(shapes[name].shape.dim) if name in shapes and shapes[name].HasField("shape") else 0


def _fronted(model: ModelProto, wanted: Adoption) -> ModelProto:
    """What the package feeds in."""
    wanted.border.put_before(model, wanted.input, wanted.batch or _BATCH)
    return model


def _named(model: ModelProto) -> ModelProto:
    """Each node under a name of its own: the exporter's, else its layer's by the weight, else its operator's."""
    taken = set[str]()
    for node in model.graph.node:
        weight = node.input[1].rpartition(".")[0] if node.op_type in WEIGHTED and len(node.input) > 1 else ""
        base = name = node.name or (f"{weight}/{node.op_type}" if weight else node.op_type)
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name
    return model


def _alike(model: ModelProto) -> Sequence[str]:
    names = [node.name for node in model.graph.node]
    return [f"{name!r} is the name of several nodes" for name in {n for n in names if names.count(n) > 1}]


def _behind_identities(index: Index, name: str) -> NodeProto | None:
    node = index.producer.get(name)
    while node is not None and node.op_type == "Identity":
        node = index.producer.get(node.input[0])
    return node
