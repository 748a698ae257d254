"""A graph without what does not compute: the last pass of every sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from dlx_deploy.graph.model import MAX_LENGTH, max_length
from dlx_deploy.graph.passes.base import Pass

__all__ = ["TIDY", "tidy"]

PRODUCER = "dlx-deploy"


def tidy(model: ModelProto) -> ModelProto:
    """The model without what does not compute: doc strings, metadata, inferred shapes, unused constants, tool names.

    Stack traces and file paths of the exporter go with them. The model is edited in place.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    for item in _documented(model):
        item.ClearField("doc_string")
        if "metadata_props" in item.DESCRIPTOR.fields_by_name and item is not model:
            item.ClearField("metadata_props")
    bound = max_length(model)
    onnx.helper.set_model_props(model, {MAX_LENGTH: str(bound)} if bound else {})
    model.producer_name, model.producer_version, model.domain, model.model_version = PRODUCER, "", "", 0
    graph.name = PRODUCER
    return model


def _documented(model: ModelProto) -> Iterable[ModelProto | TensorProto | NodeProto]:
    graph = model.graph
    return [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *_attributes(model)]


def _attributes(model: ModelProto) -> list[onnx.AttributeProto]:
    return [item for node in model.graph.node for item in node.attribute]


def _invalid(model: ModelProto) -> Sequence[str]:
    """What ONNX's checker says, types and shapes included."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        return [str(e)]
    return []


TIDY = Pass("tidy", tidy, ensures=_invalid)
