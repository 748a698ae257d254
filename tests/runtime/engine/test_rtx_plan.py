"""Reading a plan's own text; real plans are read in test_build.py and test_networks.py."""

from __future__ import annotations

import pytest

from dlx_deploy.runtime.engine.rtx_plan import read_rtx_plan
from dlx_deploy.runtime.errors import EngineError

TEXT = """header {
  version = 5
}
descriptors {
  tensor={ alignment=128 dims={ 8 } name="x" type=half }
  tensor={ alignment=128 dims={ 8 } name="w" type=int8 }
  tensor={ alignment=128 dims={ 8 } name="b" type=float }
  sub_tensor={ base="x" name="x^deref" type=half }
}
main {
  corrltn={ name="a" output={"y" } input={"x" "w" "b" } layers="[ONNX Layer: a/Conv]\x1f[ONNX Layer: a/Q]" }
  fully_connected={ name="m" output={"y" } input={"x^deref" "x" } layers="[ONNX Layer: m/MatMul]" }
  function={ name=_gemm_mha_v2 fqn=_gemm_mha_v2_0x1 input_args={ "x" "x" } layers="" }
  function={ name=__myl_CastTran fqn=q input_args={ "b" } layers="" }
  function={ name=__myl_AddMul fqn=q input_args={ "b" } layers="" }
  runtime_fusion={ name=__myl_FcAdd input_args={ "x" } layers="[ONNX Layer: f/Gemm]|[ONNX Layer: f/Add]" }
  memset={ name="z" output={"z" } }
}
"""
NESTED = """header {
  version = 4
}
descriptors {
  tensor={ name="p" type=float }
}
main {
  fully_connected={ name="f" output={"q" } input={"p" "p" } layers="[ONNX Layer: f/Gemm]" }
}
"""


def test_kernels_their_types_and_nodes() -> None:
    plan = b"\x00binary\xff" + TEXT.encode("latin-1") + b"\x00more" + NESTED.encode("latin-1") + b"\x00"
    table = read_rtx_plan(plan)
    found = [(layer.kind, layer.precision) for layer in table.layers]
    assert found == [
        ("convolution", "fp16"),  # the wider of the activation and the weights
        ("gemm", "fp16"),
        ("gemm", "fp16"),
        ("reformat", "fp32"),
        ("other", "fp32"),
        ("gemm", "fp32"),  # from the text of the fusion itself
    ]
    assert table.layers[0].nodes == ("a/Conv", "a/Q")
    assert table.source == "plan"


def test_a_fusion_that_does_not_say_what_it_computes_in() -> None:
    table = read_rtx_plan(TEXT.encode("latin-1"))
    assert [layer.precision for layer in table.layers if layer.kind == "fusion"] == ["other"]


@pytest.mark.parametrize("plan", [b"", b"ftrt\x00\x00", b"header {\n  version = 9\n}\n\x00", TEXT[:60].encode()])
def test_what_cannot_be_read_proves_nothing(plan: bytes) -> None:
    with pytest.raises(
        EngineError, match="kernels of this TensorRT-RTX plan cannot be read, so its precision cannot be"
    ):
        read_rtx_plan(plan)
