"""The way back from a package: its teacher's ONNX in a store."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dlx_deploy.delivery import deliver, set_aside, stored_teacher
from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.execution import BuildResult
from dlx_deploy.pipeline.key import KeyDocument, key_of
from dlx_deploy.pipeline.locks import locked_at_once
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.pipeline.record import SCHEMA, Record
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.package import archive

TEACHER = b"the teacher's ONNX"


def write(store: Store, step: str, content: bytes) -> Path:
    """An entry of ``step`` whose only output, ``model.onnx``, holds ``content``: that file."""
    document = KeyDocument(2, "export", 1, 0, {"of": step}, {}, ["model.onnx"], {}, {}, {})
    key = key_of(document)

    def fill(work: Path) -> Record:
        (work / "model.onnx").write_bytes(content)
        return Record(
            step=step, key=key, document=document, outputs=store.outputs_in(work, ["model.onnx"]), metrics={},
            started="2026-11-26T00:00:00+00:00", seconds=1.0, schema=SCHEMA, target_name="cpu",
        )  # fmt: skip

    store.write(fill, key)
    return store.output_path(key, "model.onnx")


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the package's ``manifest.json`` holds; to be changed."""
    made: dict[str, Any] = {"steps": {"verify": {"inputs": {"teacher": hashlib.sha256(TEACHER).hexdigest()}}}}
    monkeypatch.setattr(archive, "read_archive", lambda path, trust: {"manifest.json": json.dumps(made).encode()})
    return made


def test_the_teacher_is_found_by_its_bytes(tmp_path: Path, manifest: dict[str, Any]) -> None:
    store = Store(tmp_path / ".dlx")
    assert stored_teacher(tmp_path / "x.dlx", store.root) is None
    assert not store.root.exists()  # looking writes nothing
    write(store, "export-student", b"another")
    path = write(store, "export-teacher", TEACHER)
    found = stored_teacher(tmp_path / "x.dlx", store.root)
    assert found == (path, "export-teacher")
    path.chmod(0o644)
    path.write_bytes(TEACHER.upper())  # of the same size
    assert stored_teacher(tmp_path / "x.dlx", store.root) is None


@pytest.mark.parametrize("made", [{}, {"verify": []}, {"verify": {"inputs": {"teacher": ["x"]}}}, [1]])
def test_a_package_that_does_not_say_it(tmp_path: Path, manifest: dict[str, Any], made: Any) -> None:
    manifest["steps"] = made
    write(Store(tmp_path), "export-teacher", TEACHER)
    assert stored_teacher(tmp_path / "x.dlx", tmp_path) is None


def test_a_signature_is_of_the_package_that_it_lies_beside(tmp_path: Path) -> None:
    stored, package = tmp_path / "package.dlx", tmp_path / "dist" / "x.dlx"
    signature, aside = tmp_path / "dist" / "x.dlx.sig", tmp_path / "dist" / "x.dlx.sig.superseded"
    outputs = {"package": {"package.dlx": stored}}
    manifest = Manifest(
        schema=1, dlx_deploy="0", target_name="cpu", target={}, config={}, host={}, started="", status="done"
    )
    result = cast(BuildResult, SimpleNamespace(manifest=manifest, outputs=outputs))
    stored.write_bytes(b"first")
    deliver(result, package)
    signature.write_bytes(b"of the first")
    deliver(result, package)
    assert signature.read_bytes() == b"of the first"  # the same bytes again
    stored.write_bytes(b"second")
    deliver(result, package)
    assert (signature.exists(), aside.read_bytes()) == (False, b"of the first")
    signature.write_bytes(b"of the second")
    set_aside(package, lambda _: None)
    assert (signature.exists(), aside.read_bytes()) == (False, b"of the second")


def test_a_manifest_that_cannot_be_opened_has_a_remedy_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, package = tmp_path / "package.dlx", tmp_path / "x.dlx"
    stored.write_bytes(b"first")
    made = Manifest(
        schema=1, dlx_deploy="0", target_name="cpu", target={}, config={}, host={}, started="", status="done"
    )
    result = cast(BuildResult, SimpleNamespace(manifest=made, outputs={"package": {"package.dlx": stored}}))
    deliver(result, package)
    opens, refused = os.open, [os.O_RDWR]

    def refuse(path: Any, how: int, *mode: Any) -> int:
        if str(path).endswith("x.manifest.json") and any(how & flag == flag for flag in refused):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opens(path, how, *mode)

    monkeypatch.setattr(os, "open", refuse)
    deliver(result, package)  # it is replaced, and nothing is written into it
    refused.append(os.O_RDONLY)
    with pytest.raises(StoreError, match=r"x\.manifest\.json: Permission denied; the stages are kept: .*--output$"):
        deliver(result, package)


def test_a_proof_that_is_attached_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is locked from where its proofs are read until it is written."""
    stored, package = tmp_path / "package.dlx", tmp_path / "x.dlx"
    made = Manifest(
        schema=1, dlx_deploy="0", target_name="cpu", target={}, config={}, host={}, started="", status="done"
    )
    result = cast(BuildResult, SimpleNamespace(manifest=made, outputs={"package": {"package.dlx": stored}}))
    free: list[bool] = []

    def look(path: Path) -> dict[str, Any]:
        other = locked_at_once(path.with_suffix(".manifest.json"))
        free.append(other is not None)
        if other is not None:
            other.close()
        return {}

    monkeypatch.setattr("dlx_deploy.delivery.proofs_beside", look)
    stored.write_bytes(b"first")
    deliver(result, package)
    deliver(result, package)
    assert free == [False]
    writes = write_atomically

    def seen(path: Path, data: bytes, mode: int) -> None:
        if path.suffix == ".json":
            look(package)
        writes(path, data, mode)

    monkeypatch.setattr("dlx_deploy.delivery.write_atomically", seen)
    stored.write_bytes(b"second")  # other bytes: who attaches to the first waits, and sees that they are gone
    deliver(result, package)
    assert free == [False, False]
    assert json.loads(package.with_suffix(".manifest.json").read_text())["target_name"] == "cpu"
