"""What the engine inspector of each TensorRT says; the texts are written after its documented forms, not recorded."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from dlx_deploy.runtime.engine.build import _prove
from dlx_deploy.runtime.engine.inspector import read_inspection
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.engine.table import EngineLayer, PrecisionTable, patterns, violations
from dlx_deploy.runtime.errors import EngineError, PackageError


def tensor(kind: str, form: str = "Format/Datatype") -> dict[str, Any]:
    return {"Name": "t", "Dimensions": [1, 8, 8, 8], form: kind}


def read(*layers: Any) -> PrecisionTable:
    return read_inspection(json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]}))


def conv(kind: str, **more: Any) -> dict[str, Any]:
    return {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [tensor(kind)], "Outputs": [tensor(kind)], **more}


@pytest.mark.parametrize(
    ("spelling", "precision"),
    [
        ("Int8 NHWC16", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Half NC/8HW8", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Row major linear BFloat16 format", "bf16"),
        ("FP8 E4M3", "fp8"),
        ("something new", "other"),
    ],
)
def test_how_types_are_spelt(spelling: str, precision: str) -> None:
    assert read(conv(spelling)).layers[0].precision == precision


def test_tensorrt_8_names_nodes_in_the_name() -> None:
    table = read(
        {
            "Name": "conv1.weight/DequantizeLinear + conv1/Conv + relu/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor("Int8")],
        },
        {"Name": "PWN(sigmoid/Sigmoid, mul/Mul)", "LayerType": "PointWiseV2", "Inputs": [tensor("Half")]},
        {
            "Name": "fc/Gemm||fc2/Gemm",
            "LayerType": "CaskGemmMatrixMultiply",
            "Inputs": [tensor("Half"), tensor("Half")],
        },
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1/Conv",
            "LayerType": "Reformat",
            "Inputs": [tensor("FP32")],
        },
    )
    assert [layer.kind for layer in table.layers] == ["convolution", "other", "gemm", "reformat"]
    assert violations(table, {"conv1/Conv": "int8", "fc2/Gemm": "fp16"}) == []
    assert table.reformats == 1


def test_tensorrt_10_names_nodes_in_the_metadata() -> None:
    metadata = "[ONNX Layer: a/Conv]\u001e[ONNX Layer: b/Relu]"
    fused = {
        "Name": "__myl_Fc_0",
        "LayerType": "gemm",
        "Inputs": [tensor("Half"), tensor("Half")],
        "Metadata": "[ONNX Layer: c/MatMul]",
    }
    attention = {"Name": "__mha", "LayerType": "kgen", "TacticName": "_gemm_mha_v2_0x1", "Inputs": [tensor("Half")] * 3}
    table = read(conv("Int8", Metadata=metadata), fused, attention)
    assert table.layers[0].nodes == ("a/Conv", "b/Relu")
    assert table.shares() == {"fp16": 2 / 3, "int8": 1 / 3}


def test_tensorrt_11_splits_format_and_type() -> None:
    layer = conv("Row major", Inputs=[{"Name": "t", "Format": "Row major", "DataType": "Int8"}])
    assert read(layer).layers[0].precision == "int8"


def test_int8_input_with_float_weights_is_not_int8() -> None:
    assert read(conv("Int8", Weights={"Type": "Float", "Count": 9})).layers[0].precision == "fp32"
    assert read(conv("Int8", Weights={"Type": "Int8", "Count": 9})).layers[0].precision == "int8"


def test_a_subgraph_of_tensorrt_8_hides_its_nodes() -> None:
    opaque = {
        "Name": "{ForeignNode[a...b]}",
        "LayerType": "Myelin",
        "Inputs": [tensor("Half")],
        "Metadata": "[ONNX Layer: a/MatMul]",
    }
    table = read(opaque, conv("Int8"))
    assert violations(table, {"a/MatMul": "int8"}) == []  # nothing can be said of it
    assert (
        table.describe()
        == "int8 1 of 1 (100 %); 0 reformats; 1 layers that TensorRT compiled as a whole and does not open"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": 3}'])
def test_what_is_no_inspection(text: str) -> None:
    with pytest.raises(EngineError, match="inspector"):
        read_inspection(text)


def test_too_little_verbosity() -> None:
    with pytest.raises(EngineError, match="build the engine with profiling verbosity DETAILED"):
        read("a", "b")
    with pytest.raises(EngineError, match="names no details"):
        read()


def test_violations() -> None:
    layers = (
        EngineLayer("1", "convolution", "fp32", ("a/Conv", "a/Relu")),
        EngineLayer("2", "convolution", "int8", ("b/Conv",)),
        EngineLayer("3", "gemm", "bf16", ("c/Gemm",)),
        EngineLayer("4", "other", "fp32", ("d/Conv",)),
        EngineLayer("5", "gemm", "other", ("e/Gemm",)),
        EngineLayer("6", "convolution", "fp32", ("f/Conv",)),  # one node in two kernels: the wider counts
        EngineLayer("7", "convolution", "int8", ("f/Conv",)),
    )
    table = PrecisionTable("plan", layers)
    assert violations(table, {"a/Conv": "fp32", "b/Conv": "fp16", "c/Gemm": "fp16"}) == []
    assert violations(
        table, dict.fromkeys(("a/Conv", "b/Conv", "c/Gemm", "d/Conv", "e/Gemm", "f/Conv", "g/Conv"), "int8")
    ) == [
        "a/Conv: asked for int8, the engine computes it in fp32",
        "c/Gemm: asked for int8, the engine computes it in bf16",
        "d/Conv: asked for int8, the engine computes it in fp32",
        "e/Gemm: asked for int8, the engine computes it in other",
        "f/Conv: asked for int8, the engine computes it in fp32",
        "g/Conv: asked for int8, and no layer of the engine names it",
    ]


def test_layers_that_differ_in_numbers_alone_have_one_pattern() -> None:
    names = ["features.1.0.attn/MatMul", "features.12.3.attn/MatMul", "layer1.0/Conv_2", "odd[0].fc/Gemm", "1x1.a/Conv"]
    told = patterns(names)
    assert told == ["features.*.*.attn/MatMul", "layer1.*/Conv_2", "odd[[]0].fc/Gemm", "1x1.a/Conv"]
    assert all(any(fnmatchcase(name, pattern) for pattern in told) for name in names)


def test_a_table_comes_back_from_json() -> None:
    table = PrecisionTable("plan", (EngineLayer("1", "gemm", "int8", ("a", "b")), EngineLayer("2", "reformat", "fp16")))
    assert PrecisionTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    for damaged in ({}, {"source": "plan", "layers": [{"name": "x"}]}, {"source": "plan", "layers": 3}):
        with pytest.raises(PackageError, match="precision table is damaged"):
            PrecisionTable.from_dict(damaged)


def test_a_layer_that_came_out_wider_is_refused_with_patterns() -> None:
    layers = tuple(EngineLayer(str(i), "gemm", "fp16", (f"blocks.{i}.qkv/MatMul",)) for i in range(7))
    asked = {f"blocks.{i}.qkv/MatMul": "int8" for i in range(7)}
    with pytest.raises(
        EngineError,
        match=r'in 7 places: blocks\.0\.qkv/MatMul: .*\(quantize\.exclude = \["blocks\.\*\.qkv/MatMul"\]\), or',
    ):
        _prove(PrecisionTable("plan", layers), BuildSettings("tensorrt", "int8", (1, 1, 1), layers=asked))
    _prove(PrecisionTable("plan", layers), BuildSettings("tensorrt", "fp16", (1, 1, 1), layers={}))
