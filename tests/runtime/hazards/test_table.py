"""The table of known wrong computations: what it says, for which versions and machines, and that it is well formed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.backends.table import BACKENDS
from dlx_deploy.runtime.hazards import table as tables
from dlx_deploy.runtime.hazards.operators import Operator, in_exact
from dlx_deploy.runtime.hazards.table import Condition, hazard_table, hazards_for, hazards_of, read_table
from dlx_deploy.runtime.sources import own_sources

FILE = Path(tables.__file__).with_name("table.json")
DOCS = Path(__file__).parents[3] / "docs" / "hazards.md"
VALUES = json.loads(FILE.read_text(encoding="utf-8"))
GRID = Operator("GridSample", 20, "float32", "float32", ("align_corners", "mode=linear"))
HALF = Operator("QuantizeLinear", 20, "float16", "int8")
MEAN, POW, SQRT = (Operator(name, 16, "float16", "float16") for name in ("ReduceMean", "Pow", "Sqrt"))


def ids(operators: list[Operator], backend: str, version: str | None = None, arch: str | None = None) -> list[str]:
    return [hazard.id for hazard in hazards_for(operators, backend, version, arch)]


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("10.3.0", False), ("10.13.3.9", True), ("10.16.1", True), ("11.1.0.106", True), ("11.4.1", False), (None, True)],
)
def test_grid_sample_on_tensorrt(version: str | None, wrong: bool) -> None:
    assert ids([GRID], "tensorrt", version) == ["tensorrt-gridsample-opset20"] * wrong
    for safe in (replace(GRID, opset=19), replace(GRID, attributes=("mode=nearest",))):
        assert ids([safe], "tensorrt", version) == []


@pytest.mark.parametrize(
    ("version", "arch", "found"),
    [
        ("1.23.2", "aarch64", ["onnxruntime-quantizelinear-fp16"]),
        ("1.24.1", "aarch64", ["onnxruntime-fp16-aarch64", "onnxruntime-quantizelinear-fp16"]),
        ("1.29.0", "x86_64", ["onnxruntime-quantizelinear-fp16"]),
        ("1.30.0", "aarch64", ["onnxruntime-fp16-aarch64"]),
        ("1.30.0", "x86_64", []),
        ("1.32.0", "aarch64", ["onnxruntime-fp16-aarch64"]),
    ],
)
def test_half_precision_on_onnx_runtime(version: str, arch: str, found: list[str]) -> None:
    assert ids([HALF], "onnxruntime-cpu", version, arch) == found
    assert ids(list(in_exact([HALF])), "onnxruntime-cpu", version, arch) == []  # exact arithmetic has no float16


@pytest.mark.parametrize(
    ("version", "found"),
    [("1.19.2", ["onnxruntime-fp16-conv-aarch64"]), ("1.24.1", ["onnxruntime-fp16-aarch64"])],
)
def test_convolutions_in_half_precision_overflow_on_every_version(version: str, found: list[str]) -> None:
    conv = Operator("Conv", 20, "float16", "float16")
    assert ids([conv], "onnxruntime-cpu", version, "aarch64") == found
    assert ids([conv], "onnxruntime-cpu", version, "x86_64") == []
    assert ids([replace(conv, type="Relu")], "onnxruntime-cpu", "1.23.2", "aarch64") == []


def test_a_decomposed_layer_norm_in_half_precision() -> None:
    assert ids([MEAN, POW, SQRT], "tensorrt", "8.5.2") == ["tensorrt-layernorm-fp16"]
    assert ids([MEAN, SQRT], "tensorrt", "8.5.2") == []  # a mean alone is none
    assert ids([replace(one, dtype="float32") for one in (MEAN, POW, SQRT)], "tensorrt", "8.5.2") == []
    assert ids([replace(one, opset=17) for one in (MEAN, POW, SQRT)], "tensorrt", "8.5.2") == []


def test_operators_of_other_domains_are_others() -> None:
    assert ids([replace(GRID, domain="com.microsoft")], "tensorrt", "11.1") == []
    assert not Condition(operators=("Relu",), with_=("Add",)).meets([Operator("Relu", 20, "", "")])


def test_the_worst_comes_first() -> None:
    actions = [tables.ACTIONS.index(hazard.action) for hazard in hazards_of("tensorrt")]
    assert actions == sorted(actions)
    assert len(set(actions)) > 1


def test_the_table_travels_in_packages_and_names_backends_that_there_are() -> None:
    assert own_sources()["hazards/table.json"] == FILE.read_bytes()
    for hazard in hazard_table().hazards:
        assert set(hazard.backends) <= set(BACKENDS), hazard.id
        assert hazard.evidence
        assert hazard.describe().startswith(hazard.title)


INSTALL = re.compile(
    r"(?:for a graph without ([\w ]+), |elsewhere than on (\w+), )?install (?:onnxruntime|TensorRT(?:-RTX)?) (\d[\d.]*)"
)
"""What a remedy says to install, and where: the operators that a graph then may not have, the machine left out."""


def led_into(hazard: tables.Hazard) -> list[str]:
    """The wrong computations of the same operators or types that a graph may meet where the remedy is followed."""
    found = []
    for without, but_on, version in INSTALL.findall(hazard.remedy):
        for other in hazard_table().hazards:
            left = [name for name in other.when.operators if name not in without.split(" and ")]
            machines = [arch for arch in other.architectures if arch != but_on]
            spared = (other.when.operators and not left) or (other.architectures and not machines)
            when, theirs = hazard.when, other.when
            alike = {*when.operators} & {*theirs.operators} or {*when.dtypes} & {*theirs.dtypes}
            if alike and not spared and any(other.runs_on(backend, version, None) for backend in hazard.backends):
                found.append(other.id)
    return found


def test_no_remedy_leads_into_another_hazard() -> None:
    found = [hazard for hazard in hazard_table().hazards if INSTALL.search(hazard.remedy)]
    assert len(found) == sum("install" in hazard.remedy for hazard in hazard_table().hazards) >= 3
    assert {hazard.id: led_into(hazard) for hazard in found if led_into(hazard)} == {}
    half = next(hazard for hazard in found if hazard.id == "onnxruntime-fp16-aarch64")
    convs = replace(half, remedy="install onnxruntime 1.23.2")
    assert led_into(convs) == ["onnxruntime-fp16-conv-aarch64", "onnxruntime-quantizelinear-fp16"]


def test_each_entry_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [hazard.id for hazard in hazard_table().hazards if f"`{hazard.id}`" not in text] == []


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def changing(values: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for step in above:
            values = values[int(step) if step.isdigit() else step]  # type: ignore[call-overload]  # a list
        values[last] = value

    return changing


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema is 2; must be 1"),
        ("date", "yesterday", "date is 'yesterday'; must be a day"),
        ("hazards.0.action", "ignore", "hazards 'tensorrt-gridsample-opset20': .*action is 'ignore'"),
        ("hazards.0.versions", [["ten", None]], "versions has 'ten'; must be a version"),
        ("hazards.0.versions", [["10.1"]], r"versions has \['10.1'\]; must be \[first, last\]"),
        ("hazards.0.versions", [], "versions must be a list"),
        ("hazards.0.when", {}, "when says nothing, and would hold for every graph"),
        ("hazards.0.when", {"opset": 3, "operators": ["A"]}, "when.opset is 3"),
        ("hazards.0.when", {"operator": ["A"]}, "unexpected keyword argument 'operator'"),
        ("hazards.0.when", {"operators": "GridSample"}, "when.operators is 'GridSample'; must be a list of strings"),
        ("hazards.0.remedy", "", "remedy is ''; must be a string"),
        ("hazards.0.note", "x", "unexpected keyword argument 'note'"),
        ("hazards.1.id", "tensorrt-gridsample-opset20", "each must be there once"),
        ("hazards", {"0": {}}, "must be a list of tables"),
        ("hazards", [3], "hazards has 3; must be tables"),
    ],
)
def test_a_table_that_is_none(path: str, value: Any, message: str) -> None:
    values = copy.deepcopy(VALUES)
    change(path, value)(values)
    with pytest.raises(ValueError, match=message):
        read_table(values)
