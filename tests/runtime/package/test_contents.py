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
    input_digests,
    make_reference,
    open_package,
    parse_package,
)
from dlx_deploy.runtime.package.fields import npy_array, npy_bytes


def test_round_trip(dlx: Path, contents: PackageContents, files: dict[str, bytes]) -> None:
    package = open_package(dlx)
    assert (package.name, package.version, package.target) == ("tiny", "1.2.3", "cpu-x86_64")
    assert (package.input.shape, package.batch, package.labels) == ((6, 4, 3), None, ("cat", "dog", "owl"))
    assert (package.exact_qdq, package.atol, package.rtol) == (False, 1e-4, 1e-4)
    assert (package.max_drop, package.confidence, package.max_latency_p90_ms) == (0.02, 0.95, None)
    assert package.model == contents.model
    np.testing.assert_array_equal(package.golden_inputs, contents.golden_inputs)
    np.testing.assert_array_equal(package.golden_logits, contents.golden_logits)
    np.testing.assert_array_equal(package.reference, contents.reference)
    assert package.golden_inputs.dtype == np.uint8
    assert package.digest == hashlib.sha256(files["package.json"]).hexdigest()
    assert package.meta["recipe"] == {"seed": 0}


def test_two_builds_give_the_same_bytes(tmp_path: Path, contents: PackageContents) -> None:
    for name in ("one", "two"):
        write_archive(tmp_path / name, assemble(contents))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_members(files: dict[str, bytes]) -> None:
    runtime = {name for name in files if name.startswith("dlx_runtime/")}
    sources = Path(__file__).parents[3] / "dlx_deploy" / "runtime"
    assert runtime == {f"dlx_runtime/{p.relative_to(sources).as_posix()}" for p in sources.rglob("*.py")}
    assert set(files) - runtime == {
        "MODEL_CARD.md",
        "__main__.py",
        "golden/inputs.npy",
        "golden/logits.npy",
        "manifest.json",
        "model.onnx",
        "package.json",
        "reference.npy",
    }
    meta = json.loads(files["package.json"])
    assert set(meta["files"]) == set(files) - {"package.json"}
    assert meta["golden"] == {"atol": 1e-4, "rtol": 1e-4, "images": 4, "top1": "must agree"}


def test_fixed_batch_is_recorded(contents: PackageContents) -> None:
    package = parse_package(assemble(replace(contents, batch=2)), "x")
    assert package.batch == 2
    assert package.meta["outputs"][0]["shape"] == [2, 3]


def test_latency_budget(contents: PackageContents, helpers: Any) -> None:
    budgets = {"max_drop": 0.01, "confidence": 0.9, "max_latency_p90_ms": 2.5}
    package = parse_package(assemble(replace(contents, metadata=helpers.metadata(budgets=budgets))), "x")
    assert package.max_latency_p90_ms == 2.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, r"the new package: package\.json: name is 3; must be of type str, a string"),
        ({"target": {}}, "target.name is None; must be of type str"),
        ({"target": "jetson"}, "target.name is None"),
        ({"labels": ["cat"]}, r"labels is \['cat'\]; must be at least two different strings"),
        ({"labels": ["cat", "cat", "owl"]}, "must be at least two different strings"),
        ({"labels": ["cat", "dog"]}, r"outputs is .*; must be \[.*2\]"),
        ({"execution": {"exact_qdq": 1}}, "execution.exact_qdq is 1; must be of type bool, true or false"),
        ({"golden": {"atol": -1, "rtol": 0}}, "golden.atol is -1; must be a finite number from 0"),
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
    ("changes", "message"),
    [
        (
            {"golden_inputs": np.zeros((4, 6, 4, 3), np.float32)},
            r"'golden/inputs\.npy' is float32\[4, 6, 4, 3\]; must be",
        ),
        (
            {"golden_logits": np.zeros((5, 3), np.float32)},
            r"'golden/logits\.npy' is float32\[5, 3\]; must be float32\[4, 3\]",
        ),
        ({"golden_inputs": np.zeros((0, 6, 4, 3), np.uint8)}, "golden.images is 0; must be at least 1"),
        ({"golden_logits": np.zeros((4, 3))}, r"'golden/logits\.npy' is float64"),
        ({"reference": np.zeros((4, 2), np.uint64)}, r"'reference\.npy' is uint64\[4, 2\]; must be uint64\[None, 3\]"),
    ],
)
def test_arrays_that_do_not_fit(contents: PackageContents, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        assemble(replace(contents, **changes))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("task", "detection", "task is 'detection'; must be one of image-classification, seq"),
        ("input.dtype", "float32", "input is .*; must be"),
        ("input.layout", "NCHW", "input is .*; must be"),
        ("input.name", "x", "input is .*; must be"),
        ("input.shape", ["batch", 6, 4], r"input.shape is \['batch', 6, 4\]; must be \[\"batch\" or a size"),
        ("input.shape", ["batch", 6, 0, 3], r"input.shape is .*; must be \[\"batch\" or a size"),
        ("outputs", [], r"outputs is \[\]; must be"),
        ("golden.images", 5, "golden.images is 5; must be 4"),
    ],
)
def test_index_of_another_kind(files: dict[str, bytes], path: str, value: Any, message: str) -> None:
    meta = json.loads(files["package.json"])
    table = meta
    *parents, last = path.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
    with pytest.raises(PackageError, match=message):
        parse_package({**files, "package.json": to_json(meta)}, "x.dlx")


def test_without_a_model(files: dict[str, bytes]) -> None:
    fewer = {name: data for name, data in files.items() if name != "model.onnx"}
    with pytest.raises(PackageError, match=r"'model\.onnx' is missing; a package of schema 1 has it"):
        parse_package(fewer, "x.dlx")


def test_reference_rows() -> None:
    images = np.arange(2 * 2 * 3 * 1, dtype=np.uint8).reshape(2, 2, 3, 1)
    first = int.from_bytes(hashlib.sha256(bytes(range(6))).digest()[:8], "little")
    table = make_reference(images, [1, 0], [1, 2])
    assert table.dtype == np.uint64
    assert table[0].tolist() == [first, 1, 1]
    assert table[1].tolist()[1:] == [0, 2]
    turned = np.asfortranarray(images)
    np.testing.assert_array_equal(input_digests(turned), table[:, 0])


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.uint64), np.arange(6, dtype=np.uint64).reshape(2, 3)])
def test_npy_round_trip(array: np.ndarray) -> None:
    found = npy_array({"a": npy_bytes(array)}, "a", "x", np.uint64, (None, 3))
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


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
        npy_array({"a": data}, "a", "x", np.uint64, (None, 3))


def test_package_is_frozen(package: Package) -> None:
    with pytest.raises(AttributeError):
        package.name = "other"  # type: ignore[misc]
