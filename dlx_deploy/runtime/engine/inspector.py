"""The layers of an engine from the JSON of TensorRT's engine inspector, in the forms of TensorRT 8.5 to 11.

Needs an engine that was built with ``ProfilingVerbosity.DETAILED``. A tensor's type stands in ``Format/Datatype``, in
TensorRT 11 in ``DataType``; the ONNX nodes of a layer stand in ``Metadata``, before TensorRT 8.6 only in its name.
"""

from __future__ import annotations

import json
import re
from typing import Dict, Sequence, Tuple

from ..errors import EngineError
from ..untyped import JsonTable
from .table import OPAQUE, WIDTH, EngineLayer, PrecisionTable

__all__ = ["read_inspection"]

NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
TYPES = (
    ("int4", ("int4",)),
    ("fp8", ("fp8", "e4m3")),
    ("bf16", ("bf16", "bfloat16")),
    ("int8", ("int8",)),
    ("fp16", ("half", "fp16", "float16")),
    ("fp32", ("float", "fp32")),
)
"""How the inspector spells each type; BF16 and FP8 come first, as their names hold those of others."""
KINDS = (
    ("reformat", ("reformat", "reformatter", "copy")),
    ("deconvolution", ("deconv",)),
    ("convolution", ("conv",)),
    ("gemm", ("gemm", "matrixmultiply", "matrix multiply", "fullyconnected", "mha", "fc")),
)


def read_inspection(text: str) -> PrecisionTable:
    """What each layer computes in.

    Raises:
        EngineError: no such JSON, or one without the layers' details.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as e:
        raise EngineError(f"the engine inspector's answer cannot be read ({e}); its precision cannot be proven") from e
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        raise EngineError(
            "the engine inspector names no details of the layers; build the engine with profiling verbosity DETAILED"
        )
    return PrecisionTable("inspector", tuple(_layer(layer) for layer in layers))


def _layer(layer: JsonTable) -> EngineLayer:
    name = str(layer.get("Name", ""))
    kind = _kind(layer)
    return EngineLayer(name, kind, _precision(layer, kind), _nodes(name, str(layer.get("Metadata", ""))))


def _kind(layer: JsonTable) -> str:
    """By the layer's type, and for a generated kernel by its tactic; a Myelin layer as a whole says nothing."""
    kind = str(layer.get("LayerType", "")).lower()
    if kind == "myelin" or (not kind and "ForeignNode" in str(layer.get("Name", ""))):
        return OPAQUE
    words = (kind, str(layer.get("ParameterType", "")).lower())
    for name, spellings in KINDS:
        if any(spelling in word for word in words for spelling in spellings):
            return name
    tactic = str(layer.get("TacticName", "")).lower()
    return "gemm" if "mha" in tactic or "_gemm_" in tactic else "other"


def _precision(layer: JsonTable, kind: str) -> str:
    """The widest of what the layer computes with: its first input and its weights, or two inputs."""
    inputs: Sequence[JsonTable] = layer.get("Inputs") or []
    listed = layer.get("Weights")
    weights: Dict[str, object] = listed if isinstance(listed, dict) else {}
    types = [_type(tensor) for tensor in inputs[: 2 if kind == "gemm" and not weights else 1]]
    if weights.get("Type"):
        types.append(_named(str(weights["Type"])))
    known = [precision for precision in types if precision in WIDTH]
    return max(known, key=WIDTH.__getitem__) if known else "other"


def _type(tensor: JsonTable) -> str:
    return _named(str(tensor.get("DataType") or tensor.get("Format/Datatype") or tensor.get("Format") or ""))


def _named(text: str) -> str:
    lowered = text.lower()
    return next((kind for kind, spellings in TYPES if any(s in lowered for s in spellings)), "other")


def _nodes(name: str, metadata: str) -> Tuple[str, ...]:
    """The ONNX nodes: from the metadata, else the parts of the layer's name."""
    listed = NODE.findall(metadata)
    if listed:
        return tuple(dict.fromkeys(listed))
    parts = re.split(r" \+ |\|\|", name)
    return tuple(re.sub(r"^PWN\(|\)+$", "", part.strip()) for part in parts if part.strip())
