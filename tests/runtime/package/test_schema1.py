"""Packages of schema 1, as older versions built them, open and do all that they did."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import assemble, parse_package
from dlx_deploy.runtime.package.fields import npy_bytes
from dlx_deploy.runtime.predictor import Predictor


def loaded(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data))


def as_schema_1(files: Mapping[str, bytes], count: str) -> dict[str, bytes]:
    """The same package in the older layout; ``count`` is what it calls the number of golden samples."""
    meta = json.loads(files["package.json"])
    (source,) = meta.pop("inputs")
    tolerance = meta["golden"]["tolerances"]["logits"]
    old = {name: data for name, data in files.items() if not name.startswith("reference/")}
    columns = [loaded(files[f"reference/{name}.npy"]).astype(np.uint64) for name in ("digest", "label", "teacher")]
    old["reference.npy"] = npy_bytes(np.stack(columns, axis=1))
    old["golden/inputs.npy"] = old.pop(f"golden/{source['name']}.npy")
    golden = {count: meta["golden"]["count"], **tolerance, "top1": "must agree"}
    return sealed(old, {**meta, "schema": 1, "input": source, "golden": golden})


def sealed(files: Mapping[str, bytes], meta: Mapping[str, Any]) -> dict[str, bytes]:
    members = {name: data for name, data in files.items() if name != "package.json"}
    listed = {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in members.items()}
    return {**members, "package.json": to_json({**meta, "files": listed})}


@pytest.fixture(scope="module")
def old_files(files: dict[str, bytes]) -> dict[str, bytes]:
    return as_schema_1(files, "images")


@pytest.fixture(scope="module")
def old_texts() -> dict[str, bytes]:
    from ..tasks.test_texts import contents  # type: ignore[import-not-found]

    return as_schema_1(assemble(contents()), "texts")


def test_it_is_the_older_layout(old_files: dict[str, bytes], old_texts: dict[str, bytes]) -> None:
    for files, name in ((old_files, "images"), (old_texts, "tokens")):
        meta = json.loads(files["package.json"])
        assert (meta["schema"], meta["input"]["name"], "inputs" in meta) == (1, name, False)
        assert {n for n in files if n.endswith(".npy")} == {"golden/inputs.npy", "golden/logits.npy", "reference.npy"}


@pytest.mark.parametrize("kind", ["old_files", "old_texts"])
def test_it_says_the_same_as_the_new_one(kind: str, request: pytest.FixtureRequest, files: dict[str, bytes]) -> None:
    from ..tasks.test_texts import contents

    old = parse_package(request.getfixturevalue(kind), "old.dlx")
    new = parse_package(files if kind == "old_files" else assemble(contents()), "new.dlx")
    assert (old.inputs, old.outputs, old.tolerances, old.budgets) == (
        new.inputs,
        new.outputs,
        new.tolerances,
        new.budgets,
    )
    for arrays in ("golden_inputs", "golden_outputs", "reference"):
        for name, array in getattr(new, arrays).items():
            np.testing.assert_array_equal(getattr(old, arrays)[name], array)
            assert getattr(old, arrays)[name].dtype == array.dtype
    assert old.meta["schema"] == 1
    given = new.golden_inputs
    np.testing.assert_array_equal(Predictor(old).predict(given).logits, Predictor(new).predict(given).logits)


def test_every_command(old_files: dict[str, bytes], tmp_path: Path, data: Any, helpers: Any, capsys: Any) -> None:
    path = str(tmp_path / "old.dlx")
    write_archive(path, old_files)
    np.save(tmp_path / "test.images.npy", data[0])
    np.save(tmp_path / "test.labels.npy", data[1])
    (tmp_path / "dataset.json").write_text(json.dumps({"schema": 1, "classes": helpers.labels}))
    for command in (["info"], ["selftest"], ["bench", "--rounds", "3"], ["verify", "--data", str(tmp_path)]):
        assert main(command, path) == 0, capsys.readouterr().err
    assert "self-test passed: 4 golden inputs, every top-1 the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input.shape", ["batch", 6, 4], r"x\.dlx: package\.json: input\.shape is \['batch', 6, 4\]; must be"),
        ("input", None, r"package\.json: input is None; must be of type dict"),
        ("outputs", [], r"package\.json: outputs is \[\]; must be"),
        ("golden.images", 5, r"package\.json: golden\.images is 5; must be 4"),
        ("golden.atol", -1, r"package\.json: golden\.atol is -1; must be a finite number"),
        ("golden.exact_atol", "x", r"package\.json: golden\.exact_atol is 'x'; must be a finite number"),
        ("golden", [], r"package\.json: golden\.images is None; must be 4"),
    ],
)
def test_a_wrong_field_has_the_name_that_is_in_the_file(
    old_files: dict[str, bytes], path: str, value: Any, message: str
) -> None:
    meta = json.loads(old_files["package.json"])
    *parents, last = path.split(".")
    table = meta
    for parent in parents:
        table = table[parent]
    table[last] = value
    with pytest.raises(PackageError, match=message):
        parse_package({**old_files, "package.json": to_json(meta)}, "x.dlx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:, :2], r"'reference\.npy' is uint64\[300, 2\]; must be uint64\[None, 3\]"),
        (lambda a: a + np.array([0, 3, 0], np.uint64), r"'reference\.npy' names class 3; must be 0 to 2"),
        (lambda a: a | np.array([0, 0, 1 << 63], np.uint64), r"'reference\.npy' names class 92\d+; must be 0 to 2"),
    ],
)
def test_a_wrong_reference_table(old_files: dict[str, bytes], change: Any, message: str) -> None:
    wrong = npy_bytes(change(loaded(old_files["reference.npy"])))
    with pytest.raises(PackageError, match=message):
        parse_package(sealed({**old_files, "reference.npy": wrong}, json.loads(old_files["package.json"])), "x.dlx")


@pytest.mark.parametrize("name", ["model.onnx", "golden/inputs.npy", "golden/logits.npy", "reference.npy"])
def test_a_missing_member(old_files: dict[str, bytes], name: str) -> None:
    fewer = {key: data for key, data in old_files.items() if key != name}
    with pytest.raises(PackageError, match=rf"'{name}' is missing; a package of schema 1 has it: build it again"):
        parse_package(fewer, "x.dlx")
