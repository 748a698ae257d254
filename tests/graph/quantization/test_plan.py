from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization import plan as plan_module
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, TensorPlan, plan_bytes, read_plan
from dlx_deploy.graph.quantization.ranges import Ranges, ranges_bytes

PLAN = QuantizationPlan(
    schema=1,
    scheme="cpu",
    tensors={
        "x": TensorPlan(scale=float(np.float32(0.1)), zero_point=3, source="minmax"),
        'a "b"': TensorPlan(like="x"),
    },
    layers={"a/Conv": LayerPlan(source="max", scales=(0.5, 0.25)), "b/Gemm": LayerPlan(precision="fp32")},
)


def test_a_line_for_each_tensor_and_layer() -> None:
    assert plan_bytes(PLAN).decode() == (
        "{\n"
        '  "schema": 1,\n'
        '  "scheme": "cpu",\n'
        '  "tensors": {\n'
        '    "a \\"b\\"": {"like": "x"},\n'
        '    "x": {"scale": 0.10000000149011612, "zero_point": 3, "source": "minmax"}\n'
        "  },\n"
        '  "layers": {\n'
        '    "a/Conv": {"source": "max", "scales": [0.5,0.25]},\n'
        '    "b/Gemm": {"precision": "fp32"}\n'
        "  }\n"
        "}\n"
    )
    assert plan_bytes(QuantizationPlan(schema=1)) == b'{\n  "schema": 1,\n  "tensors": {},\n  "layers": {}\n}\n'


def test_ranges_have_a_line_for_each_tensor() -> None:
    content = ranges_bytes(Ranges(rows=8, tensors={"x": {"minmax": (-1.0, 2.0), "entropy": (-0.5, 2.0)}}))
    assert b'    "x": {"minmax": [-1.0,2.0], "entropy": [-0.5,2.0]}\n' in content
    assert json.loads(content) == {
        "schema": 1, "rows": 8, "tensors": {"x": {"minmax": [-1.0, 2.0], "entropy": [-0.5, 2.0]}}
    }  # fmt: skip


SCALES = st.floats(2.0**-100, 2.0**100, width=32)
TENSORS = st.builds(TensorPlan, scale=SCALES, zero_point=st.integers(0, 255), source=st.text(max_size=5))
LAYERS = st.builds(
    LayerPlan, precision=st.sampled_from(["int8", "fp16", "fp32"]), scales=st.lists(SCALES, max_size=4).map(tuple)
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=8), TENSORS), st.dictionaries(st.text(max_size=8), LAYERS))
def test_what_is_written_is_read_to_the_bit(tensors: dict[str, TensorPlan], layers: dict[str, LayerPlan]) -> None:
    import tempfile

    plan = QuantizationPlan(schema=1, scheme="tensorrt", tensors=tensors, layers=layers)
    handle, name = tempfile.mkstemp()
    os.write(handle, plan_bytes(plan))
    os.close(handle)
    assert read_plan(Path(name)) == plan
    Path(name).unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"plan\.json: no quantization plan: .*; see docs/quantization\.md"),
        ("[]", "no quantization plan: Expected `object`, got `array`"),
        ('{"schema": 2}', "plan.json: schema is 2; this version reads up to 1; use a newer dlx-deploy"),
        ('{"schema": 0}', r"no quantization plan: Expected `int` >= 1 - at `\$\.schema`"),
        ('{"layers": {}}', "no quantization plan: Object missing required field `schema`"),
        ('{"schema": 1, "layer": {}}', "Object contains unknown field `layer`"),
        ('{"schema": 1, "tensors": {"x": {"scal": 1}}}', r"contains unknown field `scal` - at `\$\.tensors\[\.\.\.\]`"),
        ('{"schema": 1, "layers": {"a": {"precision": "int2"}}}', r"Invalid enum value 'int2'"),
    ],
)
def test_what_is_no_plan(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_plan(tmp_path / "plan.json")


def test_files_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"plan\.json: cannot be read \(No such file or directory\); quantize\.plan nam"
    ):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text('{"schema": 1}')
    monkeypatch.setattr(plan_module, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match=r"plan\.json: 13 bytes; rule: a plan has at most 10"):
        read_plan(tmp_path / "plan.json")


def test_the_layers_of_a_precision() -> None:
    assert PLAN.layers_at("int8") == ["a/Conv"]
    assert PLAN.layers_at("fp16", "fp32") == ["b/Gemm"]
