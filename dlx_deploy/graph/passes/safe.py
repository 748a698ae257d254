"""Forms that a runtime computes wrong (``runtime/hazards``) or cannot read, written in one that all compute right."""

from __future__ import annotations

import string
from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import opset, to_bytes
from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.passes.opset import lower
from dlx_deploy.runtime.hazards.operators import list_operators
from dlx_deploy.runtime.hazards.table import hazard_table

__all__ = ["SAFE_FORMS"]

BEFORE_NEW_NAMES = 19
"""The last opset whose GridSample is called ``bilinear`` where it is."""


def _safe(model: ModelProto) -> ModelProto:
    """The same graph where it has no such form: its bytes stay as they are."""
    for node in model.graph.node:
        if node.op_type == "Einsum" and not node.domain:
            _write_small(node)
    samples = any(node.op_type == "GridSample" for node in model.graph.node)
    return lower(model, BEFORE_NEW_NAMES) if samples and opset(model) > BEFORE_NEW_NAMES else model


def _write_small(einsum: NodeProto) -> None:
    """Its equation in small letters, the only ones that TensorRT's parser reads; torch's exporter writes capitals.

    Letters keep their order: an equation without ``->`` gives its axes in that order.
    """
    (equation,) = (item for item in einsum.attribute if item.name == "equation")
    text = equation.s.decode("ascii")
    letters = sorted(filter(str.isalpha, set(text)))
    if any(map(str.isupper, letters)) and len(letters) <= len(string.ascii_lowercase):
        small = str.maketrans(dict(zip(letters, string.ascii_lowercase, strict=False)))
        equation.s = text.translate(small).encode("ascii")


def _still_unsafe(model: ModelProto) -> Sequence[str]:
    """Each form of the table that builds are to rewrite, and that is still there."""
    rewritten = [hazard for hazard in hazard_table().hazards if hazard.action == "rewrite"]
    if not {node.op_type for node in model.graph.node} & {name for one in rewritten for name in one.when.operators}:
        return []
    operators = list_operators(to_bytes(model))
    return [f"{hazard.id}: {hazard.title}" for hazard in rewritten if hazard.when.meets(operators)]


SAFE_FORMS = Pass("safe-forms", _safe, ensures=_still_unsafe)
