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


def plan_of(*texts: str) -> bytes:
    """A plan around ``texts``: between binaries, each behind the magic and its length."""
    bodies = [text.encode("latin-1") for text in texts]
    return (
        b"ftrt\x00"
        + b"\xff\x00".join(b"NLYM\xa1\xda\x1e\x00" + len(b).to_bytes(8, "little") + b for b in bodies)
        + b"\x00"
    )


def test_kernels_their_types_and_nodes() -> None:
    table = read_rtx_plan(plan_of(TEXT, NESTED))
    kernels = [(layer.kind, layer.precision) for layer in table.layers]
    assert kernels == [
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
    table = read_rtx_plan(plan_of(TEXT))
    assert [layer.precision for layer in table.layers if layer.kind == "fusion"] == ["other"]


@pytest.mark.parametrize(
    "plan", [b"", b"ftrt", plan_of("header {\n  version = 9\n}\n"), plan_of(TEXT)[:-90], TEXT.encode()]
)
def test_what_cannot_be_read_proves_nothing(plan: bytes) -> None:
    with pytest.raises(EngineError, match=r"this TensorRT-RTX plan (cannot be read|is cut short), so its"):
        read_rtx_plan(plan)


def test_fp8_is_read() -> None:
    text = TEXT.replace('name="w" type=int8', 'name="w" type=fp8_e4m3').replace(
        'name="x" type=half', 'name="x" type=fp8_e4m3'
    )
    assert read_rtx_plan(plan_of(text)).layers[0].precision == "fp8"


def test_names_with_brackets_and_remarks() -> None:
    text = TEXT.replace("[ONNX Layer: a/Conv]", "[ONNX Layer: a[0]/Conv]__gemm_from_conv1x1")
    assert read_rtx_plan(plan_of(text)).layers[0].nodes == ("a[0]/Conv", "a/Q")


def test_an_operand_of_an_unknown_type_is_not_looked_over() -> None:
    text = TEXT.replace('name="w" type=int8', 'name="w" type=int2')
    assert read_rtx_plan(plan_of(text)).layers[0].precision == "other"


def test_weights_that_are_stored_as_int4_are_told_from_what_is_computed_in() -> None:
    """As of TensorRT-RTX 1.7.1: integers times block scales, then a product in floating point."""
    weights = (
        '  tensor={ name="q" type=int4 }\n  mul={ name="int4_block_dq" output={"w" } input={"q" "s" } layers="" }\n'
    )
    text = TEXT.replace("descriptors {\n", f"descriptors {{\n{weights}")
    assert read_rtx_plan(plan_of(text)).layers[0].precision == "int4"
    unpacked = text.replace("type=int4", "type=half")
    assert read_rtx_plan(plan_of(unpacked)).layers[0].precision == "fp16"
