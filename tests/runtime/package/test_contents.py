from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import (
    Package,
    PackageContents,
    assemble,
    make_reference,
    open_package,
    parse_package,
)
from dlx_deploy.runtime.package.fields import npy_array, npy_bytes
from dlx_deploy.runtime.tasks.arrays import Tensor, Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.task import Budgets


def test_round_trip(dlx: Path, contents: PackageContents, files: dict[str, bytes]) -> None:
    package = open_package(dlx)
    assert (package.name, package.version, package.target) == ("tiny", "1.2.3", "cpu-x86_64")
    assert (package.inputs, package.batch) == ({"images": Tensor("images", "uint8", (6, 4, 3), "NHWC")}, None)
    assert package.outputs == {"logits": Tensor("logits", "float32", (3,))}
    assert package.task.outputs.fields() == {"labels": ["cat", "dog", "owl"]}
    assert (package.exact_qdq, package.tolerances) == (False, {"logits": Tolerance(1e-4, 1e-4)})
    assert (package.budgets, package.max_latency_p90_ms) == (Budgets(0.02, 0.95), None)
    assert package.model == contents.model
    for kind in ("golden_inputs", "golden_outputs", "reference"):
        read, written = getattr(package, kind), getattr(contents, kind)
        assert list(read) == list(written)
        for name, array in written.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype
    assert package.digest == hashlib.sha256(files["package.json"]).hexdigest()
    assert package.meta["recipe"] == {"seed": 0}


def test_two_builds_give_the_same_bytes(tmp_path: Path, contents: PackageContents) -> None:
    for name in ("one", "two"):
        write_archive(tmp_path / name, assemble(contents))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_members(files: dict[str, bytes]) -> None:
    runtime = {name for name in files if name.startswith("dlx_runtime/")}
    sources = Path(__file__).parents[3] / "dlx_deploy" / "runtime"
    own = [path for kind in ("py", "json", "html") for path in sources.rglob(f"*.{kind}")]
    assert runtime == {f"dlx_runtime/{p.relative_to(sources).as_posix()}" for p in own}
    assert set(files) - runtime == {
        "MODEL_CARD.md",
        "__main__.py",
        "golden/images.npy",
        "golden/logits.npy",
        "manifest.json",
        "model.onnx",
        "package.json",
        "reference/digest.npy",
        "reference/label.npy",
        "reference/teacher.npy",
    }
    meta = json.loads(files["package.json"])
    assert set(meta["files"]) == set(files) - {"package.json"}
    assert meta["golden"] == {"count": 4, "tolerances": {"logits": {"atol": 1e-4, "rtol": 1e-4}}}


def test_fixed_batch_is_recorded(contents: PackageContents) -> None:
    package = parse_package(assemble(replace(contents, batch=2)), "x")
    assert package.batch == 2
    assert package.meta["outputs"][0]["shape"] == [2, 3]


def test_latency_budget(contents: PackageContents, helpers: Any) -> None:
    budgets = {"max_drop": 0.01, "confidence": 0.9, "max_latency_p90_ms": 2.5}
    package = parse_package(assemble(replace(contents, metadata=helpers.metadata(budgets=budgets))), "x")
    assert package.max_latency_p90_ms == 2.5


def test_budgets_of_the_machine_that_runs_it(contents: PackageContents, helpers: Any) -> None:
    budgets = {"max_drop": 0.01, "confidence": 0.9, "max_latency_p90_ms": 0}
    assert not parse_package(assemble(contents), "x").device_budgets.is_set  # as older packages are
    given = {"min_throughput": 100, "throughput_batch": 8, "max_energy_mj": 2.5}
    package = parse_package(assemble(replace(contents, metadata=helpers.metadata(budgets={**budgets, **given}))), "x")
    assert package.device_budgets.to_dict() == given
    for wrong, rule in (
        ({"max_size_mib": "x"}, "a finite number from 0"),
        ({"throughput_batch": 0}, "must be 1 to 65536"),
    ):
        metadata = helpers.metadata(budgets={**budgets, **wrong})
        with pytest.raises(PackageError, match=rule):
            assemble(replace(contents, metadata=metadata))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, r"the new package: package\.json: name is 3; must be of type str, a string"),
        ({"target": {}}, "target.name is None; must be of type str"),
        ({"target": "jetson"}, "target.name is None"),
        ({"execution": {"exact_qdq": 1}}, "execution.exact_qdq is 1; must be of type bool, true or false"),
        ({"budgets": {"max_drop": True, "confidence": 0.9}}, "budgets.max_drop is True"),
        ({"precision": None}, "precision is None; must be of type dict, a table"),
        ({"recipe": {"loss": float("nan")}}, "metadata cannot be written as JSON"),
        ({"recipe": {"path": Path("x")}}, "metadata cannot be written as JSON"),
    ],
)
def test_metadata_that_does_not_fit(
    contents: PackageContents, helpers: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        assemble(replace(contents, metadata=helpers.metadata(**changes)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat"], r"labels is \['cat'\]; must be at least two different strings"),
        (["cat", "cat", "owl"], "must be at least two different strings"),
        (["cat", "dog"], r"'golden/logits\.npy' is float32\[4, 3\]; must be float32\[4, 2\]"),
    ],
)
def test_labels_that_do_not_fit(contents: PackageContents, helpers: Any, labels: list[str], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        assemble(replace(contents, task=helpers.tiny_task(labels)))


REFERENCE = {"digest": np.zeros(4, np.uint64), "label": np.zeros(4, np.int64), "teacher": np.zeros(4, np.int64)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"golden_inputs": {"images": np.zeros((4, 6, 4, 3), np.float32)}},
            r"'golden/images\.npy' is float32\[4, 6, 4, 3\]; must be",
        ),
        (
            {"golden_outputs": {"logits": np.zeros((5, 3), np.float32)}},
            r"'golden/logits\.npy' is float32\[5, 3\]; must be float32\[4, 3\]",
        ),
        ({"golden_inputs": {"images": np.zeros((0, 6, 4, 3), np.uint8)}}, "golden.count is 0; must be at least 1"),
        ({"golden_outputs": {"logits": np.zeros((4, 3))}}, r"'golden/logits\.npy' is float64"),
        (
            {"golden_outputs": {"logits": np.full((4, 3), np.inf, np.float32)}},
            r"'golden/logits\.npy' holds NaN or infinite values; all must be finite",
        ),
        (
            {"golden_outputs": {"scores": np.zeros((4, 3), np.float32)}},
            r"'golden/logits\.npy' is missing; a package of",
        ),
        ({"tolerances": {}}, r"golden\.tolerances\.logits\.atol is None; must be a finite number from 0"),
        (
            {"tolerances": {"logits": Tolerance(-1, 0)}},
            r"golden\.tolerances\.logits\.atol is -1; must be a finite number from 0",
        ),
        (
            {"tolerances": {"logits": Tolerance(0, 1)}},
            r"golden\.tolerances\.logits\.rtol is 1\.0; must be at least 0 and under 1",
        ),
        (
            {"reference": {**REFERENCE, "digest": np.zeros((4, 2), np.uint64)}},
            r"'reference/digest\.npy' is uint64\[4, 2\]; must be uint64\[None\]",
        ),
        (
            {"reference": {**REFERENCE, "label": np.zeros(5, np.int64)}},
            r"'reference/label\.npy' is int64\[5\]; must be int64\[4\]",
        ),
        (
            {"reference": {**REFERENCE, "teacher": np.full(4, 3)}},
            r"'reference/teacher\.npy' names class 3; must be 0 to 2",
        ),
    ],
)
def test_arrays_that_do_not_fit(contents: PackageContents, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        assemble(replace(contents, **changes))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("task", "detection", "task is 'detection'; must be one of image-classification, s"),
        ("inputs.0.dtype", "float32", "inputs.0 is .*; must be"),
        ("inputs.0.layout", "NCHW", "inputs.0 is .*; must be"),
        ("inputs.0.name", "x", "inputs.0 is .*; must be"),
        ("inputs.0.shape", ["batch", 6, 4], r"inputs.0.shape is \['batch', 6, 4\]; must be \[\"batch\" or a size, hei"),
        ("inputs.0.shape", ["batch", 6, 0, 3], r"inputs.0.shape is .*; must be \[\"batch\" or a size"),
        ("inputs.0.shape", ["batch", 6, "w", 3], r"inputs.0.shape is .*; must be \[\"batch\" or a size, height"),
        ("inputs.0.shape", ["n", 6, 4, 3], r"inputs.0.shape is .*; must be \[\"batch\" or a size, …\]"),
        ("inputs.0.shape", [], r"inputs.0.shape is .*; must be \[\"batch\" or a size, …\]"),
        ("inputs", [], r"inputs.0 is None; must be of type dict"),
        ("outputs", [], r"outputs is \[\]; must be \[.*3\]"),
        ("outputs.0.shape", ["batch", 2], r"outputs.0 is .*; must be \{.*3\]"),
        ("golden.count", 5, "golden.count is 5; must be 4"),
    ],
)
def test_index_of_another_kind(files: dict[str, bytes], path: str, value: Any, message: str) -> None:
    meta = json.loads(files["package.json"])
    table = meta
    *parents, last = path.split(".")
    for parent in parents:
        table = table[int(parent) if parent.isdigit() else parent]
    table[last] = value
    with pytest.raises(PackageError, match=message):
        parse_package({**files, "package.json": to_json(meta)}, "x.dlx")


def test_without_a_model(files: dict[str, bytes]) -> None:
    fewer = {name: data for name, data in files.items() if name != "model.onnx"}
    with pytest.raises(PackageError, match=r"'model\.onnx' is missing; a package of schema 2 has it"):
        parse_package(fewer, "x.dlx")


def test_reference_columns() -> None:
    images = np.arange(2 * 2 * 3 * 1, dtype=np.uint8).reshape(2, 2, 3, 1)
    task = image_classification(Framing(2, 3, 1), ["a", "b", "c"])
    first = int.from_bytes(hashlib.sha256(bytes(range(6))).digest()[:8], "little")
    columns = task.outputs.record({"logits": np.eye(3, dtype=np.float32)[[1, 2]]}, {"label": np.array([1, 0])})
    table = make_reference(task, {"images": images}, columns)
    assert {name: (column.dtype, column.shape) for name, column in table.items()} == {
        "digest": (np.uint64, (2,)),
        "label": (np.int64, (2,)),
        "teacher": (np.int64, (2,)),
    }
    assert (table["digest"][0], table["label"].tolist(), table["teacher"].tolist()) == (first, [1, 0], [1, 2])
    turned = task.inputs.digests({"images": np.asfortranarray(images)})
    np.testing.assert_array_equal(turned, table["digest"])


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.uint64), np.arange(6, dtype=np.uint64).reshape(2, 3)])
def test_npy_round_trip(array: np.ndarray) -> None:
    values = npy_array({"a": npy_bytes(array)}, "a", "x", np.dtype(np.uint64), (None, 3))
    np.testing.assert_array_equal(values, array)
    assert not values.flags.writeable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "'a' is not a .npy file"),
        (b"\x93NUMPY\x02\x00" + bytes(20), "only version 1.0 is read"),
        (npy_bytes(np.zeros((2, 3), np.uint64))[:-1], "'a' has not the bytes that its header says"),
        (npy_bytes(np.zeros((2, 3), np.uint64)) + b"1", "'a' has not the bytes that its header says"),
        (npy_bytes(np.zeros((2, 3), np.uint64)).replace(b"(2, 3)", b"(9**9,"), "'a' is not a .npy file"),
        (
            npy_bytes(np.zeros((2, 3), np.uint64)).replace(b"(2, 3), }", b"(9999999999, 3)}"),
            "'a' is not|has not the bytes",
        ),
        (npy_bytes(np.zeros((2, 3), np.uint64)).replace(b"False", b"True "), "in Fortran order; must be"),
        (npy_bytes(np.zeros((2, 3), np.uint64)).replace(b"'<u8'", b"'|O' "), r"'a' is object\[2, 3\]; must be uint64"),
    ],
)
def test_npy_that_lies(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        npy_array({"a": data}, "a", "x", np.dtype(np.uint64), (None, 3))


def test_package_is_frozen(package: Package) -> None:
    with pytest.raises(AttributeError):
        package.name = "other"  # type: ignore[misc]
