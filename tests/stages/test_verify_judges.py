"""In which arithmetic verification judges a graph: what a TensorRT target computes, not what this CPU's kernels do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.config import Verify
from dlx_deploy.graph.samples import Samples
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.support.results import Accuracy
from dlx_deploy.stages.verify import STAGE
from dlx_deploy.targets import load_target

PIXELS = np.array([0, 1, 1, 2, 1, 6], np.uint8)
LABELS = np.array([0, 1, 1, 1, 1, 1], np.int64)


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


def test_a_tensorrt_target_is_judged_in_exact_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        def split(self, name: str) -> Any:
            assert name == "test"  # the gate's split, and no other
            return PIXELS.reshape(-1, 1, 1, 1), LABELS

        def samples(self, name: str) -> Samples:
            return Samples({"images": self.split(name)[0]})

    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: Data())
    (tmp_path / "teacher").write_bytes(brightness(TensorProto.FLOAT))
    (tmp_path / "quantized").write_bytes(brightness(TensorProto.FLOAT16))
    shutil.copyfile(tmp_path / "teacher", tmp_path / "thinned")  # of a stage that this one does not know
    shutil.copyfile(tmp_path / "quantized", tmp_path / "shipped")
    (tmp_path / "out").mkdir()
    inputs = {name: tmp_path / name for name in ("teacher", "thinned", "quantized", "shipped")} | {"data": tmp_path}
    STAGE.run(Job(Verify(), inputs, tmp_path / "out", load_target("jetson").profile, threads=1))
    accuracy = msgspec.json.decode((tmp_path / "out" / "accuracy.json").read_bytes(), type=Accuracy)
    assert (accuracy.judge, accuracy.shipped) == ("exact-qdq", "quantized")
    assert [row.model for row in accuracy.rows] == ["teacher", "thinned", "quantized"]
    assert (accuracy.row("thinned").b, accuracy.row("thinned").top1) == (0, 1.0)
    row = accuracy.row("quantized")
    assert (row.b, row.c, row.top1) == (3, 0, 0.5)  # every pixel of 1
    assert accuracy.row("teacher").top1 == 1.0
    assert np.load(tmp_path / "out" / "teacher.npy").tolist() == LABELS.tolist()
