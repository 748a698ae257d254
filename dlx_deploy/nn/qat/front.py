"""What an exported graph does before the network: preprocessing, which training does by itself."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor

from dlx_deploy.graph.model import Index

__all__ = ["Front", "front_of"]

PREPROCESSING = "preprocess/"
"""What names of nodes begin with that belong to no module of the network (``graph.passes.names``)."""
_STEPS = ("Cast", "Transpose", "Mul", "Add", "Sub", "Div")


@dataclass(frozen=True)
class Front:
    """``tensors``: what is computed one after the other, from the graph's input to what the network reads, the last.

    ``moved``: of these the first so many still have their channels behind; all, where the graph itself turns images.
    """

    tensors: tuple[str, ...]
    moved: int = 0

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """All of them for what a network of ours reads: only the last has its values, the others its shape."""
        behind = {name: x.movedim(1, -1) for name in self.tensors[: self.moved]}
        return {**dict.fromkeys(self.tensors, x), **behind}

    def read(self, last: Tensor) -> Tensor:
        """What a network of ours reads, where the last of them is ``last``."""
        return last.movedim(-1, 1) if self.moved == len(self.tensors) else last


def front_of(model: ModelProto) -> Front:
    """That of a graph with one input."""
    index = Index(model)
    stored = model.graph.input[0].type.tensor_type.elem_type
    tensors, moved = [model.graph.input[0].name], 0
    while step := _next(index, tensors[-1]):
        moved = len(tensors) if step.op_type == "Transpose" else moved
        tensors.append(step.output[0])
    if stored == TensorProto.UINT8 and len(tensors) > 1 and not moved:  # uint8[N, H, W, C]: no step of ours turns them
        moved = len(tensors)
    return Front(tuple(tensors), moved)


def _next(index: Index, tensor: str) -> NodeProto | None:
    """The step that reads ``tensor``, while that is all preprocessing."""
    steps = [node for node in index.readers(tensor) if node.name.startswith(PREPROCESSING) and node.op_type in _STEPS]
    return steps[0] if len(steps) == 1 else None
