"""Finished verifications, as files, and a model whose answers depend on the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.runtime.timing.latency import Percentile
from dlx_deploy.stages.support.results import Latencies, Timing
from dlx_deploy.tasks.verification import Accuracy, Row

__all__ = ["brightness", "outputs"]


def outputs(folder: Path, b: int = 2, c: int = 1, n: int = 1000, **timing: Any) -> dict[str, Path]:
    """A verification of two models in which ``quantized`` is shipped."""
    top1 = timing.pop("top1", 0.98)
    largest = timing.pop("largest_class", 0)
    changed = {"changed": timing.pop("changed")} if "changed" in timing else {}

    def row(model: str, b: int, c: int) -> Row:
        score = top1 - (b - c) / n
        return Row(
            model=model, score=score, evidence={"b": b, "c": c, **changed}, size_bytes=3000, macs=10, parameters=20
        )

    classes, baseline = timing.pop("classes", msgspec.UNSET), timing.pop("baseline", msgspec.UNSET)
    slices = timing.pop("slices", msgspec.UNSET)
    rows = (row("teacher", 0, 0), row("quantized", b, c))
    facts = {"largest_class": largest / n} if largest else {}
    accuracy = Accuracy(
        metric="top1",
        title="top-1",
        judge="exact-qdq",
        n=n,
        shipped="quantized",
        rows=rows,
        facts=facts,
        classes=classes,
        slices=slices,
        baseline=baseline,
    )
    kind = timing.pop("kind", "measured")
    values = {"p50_ms": 1.0, "p90_ms": 1.2, "p90_upper_ms": 1.3, **timing}
    p50, p90, p99 = values["p50_ms"], values["p90_ms"], values.pop("p99_ms", 1.5)
    seen = Percentile(
        percentile=90,
        ms=p90,
        lower_ms=values.get("p90_lower_ms", p90),
        upper_ms=values["p90_upper_ms"],
        by_slowest=values.get("by_slowest", False),
    )
    if kind == "measured" and p90 is not None:
        values["percentiles"] = (Percentile(50, p50, p50, p50), seen, Percentile(99, p99, p99, None))
    rows = tuple(Timing(model=m, **values) for m in ("teacher", "quantized"))
    latencies = Latencies(schema=1, kind=kind, where="a board", rows=rows)
    for name, value in (("accuracy.json", accuracy), ("latency.json", latencies)):
        (folder / name).write_bytes(canonical_json(value))
    return {name: folder / name for name in ("accuracy.json", "latency.json")}


def brightness(kind: int) -> bytes:
    """Class 1 for images that are not black: ``pixel + 2048 - 2048`` above a half, in floats of one ``kind``.

    In float16, 2049 is no number: a pixel of 1 is lost. ONNX Runtime's kernels on x86 compute in float32 and keep it.
    """
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    half = np.array([[0.5, 0]], np.float32)
    constants = [numpy_helper.from_array(np.array(2048, dtype), "large"), numpy_helper.from_array(half, "half")]
    constants.append(numpy_helper.from_array(np.array([[0, 1]], np.float32), "second"))
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], name="a", to=kind),
        helper.make_node("Flatten", ["pixels"], ["flat"], name="b"),
        helper.make_node("Add", ["flat", "large"], ["added"], name="c"),
        helper.make_node("Sub", ["added", "large"], ["back"], name="d"),
        helper.make_node("Cast", ["back"], ["float"], name="e", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "second"], ["wide"], name="f"),
        helper.make_node("Add", ["wide", "half"], ["logits"], name="g"),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 1, 1])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "brightness", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())
