"""How far a model's outputs move where what is not exactly defined comes out a last bit off; no torch.

Sums are made in another order on another CPU, and each version of ONNX Runtime has its own exponential function. In
exact arithmetic that is all that may differ. So every such result is bent a little, and the outputs are compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import infer, load, to_bytes
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.backends.exact import exact_model
from dlx_deploy.runtime.backends.exact_half import KEEPS
from dlx_deploy.runtime.backends.exact_int8 import is_on_integers

__all__ = ["BEND", "bent", "spread"]

BEND = 2.0**-20
"""Relative: eight times float32's last bit, as much as ONNX Runtime 1.17 and 1.32 differ in ``Erf``."""
DEFINED = KEEPS | {"Add", "Cast", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Sqrt", "Sub"}
"""Operators whose result is rounded once, so that there is only one."""
BATCH = 16


def spread(model: bytes, samples: Samples) -> dict[str, float]:
    """Floating-point output → the largest difference that bending makes to it in exact arithmetic, relative to its
    largest value. Whole numbers (a map of classes) are left out: they do not move, they turn.
    """
    twin = exact_model(model)
    plain, moved = (
        run_onnx(data, samples, exact_qdq=True, batch=BATCH, threads=1) for data in (twin, bent(twin, BEND))
    )
    return {name: _moved(values, moved[name]) for name, values in plain.items() if values.dtype.kind == "f"}


def _moved(plain: NDArray[np.float32], bent: NDArray[np.float32]) -> float:
    largest = float(np.abs(plain).max())
    return float(np.abs(bent - plain).max()) / largest if largest else 0.0


def bent(twin: bytes, by: float) -> bytes:
    """The float32 model ``twin`` with a factor ``1 + by`` behind each node whose result is not exactly defined."""
    model = load(twin)
    floats = _floats(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        bends = [] if node.op_type in DEFINED or is_on_integers(node.input) else [n for n in node.output if n in floats]
        for i, name in enumerate(node.output):
            if name in bends:
                node.output[i] = f"{name}/straight"
        nodes.append(node)
        nodes += [helper.make_node("Mul", [f"{name}/straight", "bend"], [name], name=f"{name}/bend") for name in bends]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 + by, np.float32), "bend"))
    return to_bytes(model)


def _floats(model: ModelProto) -> set[str]:
    return {name for name, info in infer(model).items() if info.dtype == TensorProto.FLOAT}
