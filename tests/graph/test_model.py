from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto

import dlx_deploy.graph
from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index, attribute, infer, int_attribute, load, opset, to_bytes

from ..onnx_fixtures import node, residual_net

ROOM = Path(dlx_deploy.graph.__file__).parent
MODULES = sorted(
    "dlx_deploy." + ".".join(p.relative_to(ROOM.parent).with_suffix("").parts).removesuffix(".__init__")
    for p in ROOM.rglob("*.py")
)


def test_no_torch_in_a_fresh_interpreter() -> None:
    assert len(MODULES) > 15
    heavy = ("torch", "onnxscript", "onnxruntime")
    code = f"import sys, {', '.join(MODULES)}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_gives_the_caller_its_own_model(tmp_path: Path) -> None:
    model = residual_net()
    path = tmp_path / "net.onnx"
    path.write_bytes(to_bytes(model))
    for source in (model, path, to_bytes(model)):
        mine = load(source)
        assert mine == model
        mine.graph.name = "mine"
        assert model.graph.name == "test"


def test_load_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"none\.onnx: cannot be read \(No such file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(StageFailed, match=r"the bytes: no ONNX model .*export it again"):
        load(b"\xff" * 20)


def test_index_knows_makers_and_readers() -> None:
    index = Index(residual_net())
    assert [n.name for n in index.readers("relu1")] == ["conv2/Conv", "sum/Add"]
    assert index.readers("logits") == []
    conv = index.made_by("conv2", "Conv")
    assert conv is not None
    assert index.made_by("conv2", "Relu") is None
    assert index.array("conv2.weight").shape == (8, 8, 3, 3)


def test_attributes_and_opset() -> None:
    model = residual_net()
    gemm = node(model, "logits/Gemm")
    assert (int_attribute(gemm, "transB", 0), int_attribute(gemm, "transA", 0)) == (1, 0)
    assert attribute(node(model, "conv1/Conv"), "pads") == [1, 1, 1, 1]
    assert attribute(gemm, "nothing", "default") == "default"
    assert opset(model) == 17


def test_shapes_for_a_batch() -> None:
    assert infer(residual_net())["relu3"].shape == (-1, 8, 8, 8)
    info = infer(residual_net(), batch=3)["relu3"]
    assert (info.shape, info.dtype, info.elements) == ((3, 8, 8, 8), TensorProto.FLOAT, 3 * 512)
    assert infer(residual_net(batch=4), batch=1)["logits"].shape == (4, 10)  # a fixed batch stays


def test_shape_inference_says_what_it_refuses() -> None:
    model = residual_net()
    node(model, "logits/Gemm").attribute[0].i = 0
    with pytest.raises(StageFailed, match=r"shape inference refuses the graph.*logits/Gemm"):
        infer(model)
