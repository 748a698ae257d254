from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed: pip install '.[sbom]'")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from dlx_deploy import cli

from ..conftest import PACKAGE


def bill_of(package: Path, out: Path) -> dict[str, Any]:
    assert cli.run(["inspect", str(package), "--sbom", str(out)]) == 0
    text = out.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    return document


def test_of_a_build(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    package = built / PACKAGE
    bill = bill_of(package, tmp_path / "a.json")
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "digits")
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["task"] == "image-classification"
    assert parameters["inputs"] == [{"format": "images: uint8[batch, 8, 8, 1] NHWC"}]
    assert parameters["datasets"] == [{"ref": "data"}]
    scores = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len(scores) == 2
    assert all(0 <= float(one["value"]) <= 1 for one in scores)
    assert [one["name"] for one in model["pedigree"]["ancestors"]] == ["digits teacher"]
    kinds = {one["bom-ref"]: one["type"] for one in bill["components"]}
    assert kinds["data"] == "data"
    assert any(ref.startswith("build/torch@") for ref in kinds)
    assert bill["dependencies"] == [{"ref": "model", "dependsOn": ["runtime/numpy", "runtime/onnxruntime"]}]
    members = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    listed = {name: entry["sha256"] for name, entry in inside(package)["files"].items()}
    assert members == listed

    assert "timestamp" not in bill["metadata"]
    bill_of(package, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = bill_of(package, tmp_path / "c.json")
    assert dated["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert dated["serialNumber"] == bill["serialNumber"]


def inside(package: Path) -> dict[str, Any]:
    from dlx_deploy.runtime.package.archive import INDEX, read_archive

    index: dict[str, Any] = json.loads(read_archive(package)[INDEX])
    return index


def test_on_stdout(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(built / PACKAGE), "--sbom", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"


def test_what_is_refused(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = str(built / PACKAGE)

    def said(*arguments: str) -> tuple[int, str]:
        return cli.run(["inspect", *arguments]), capsys.readouterr().err

    for arguments, code, message in (
        ((package, "--sbom", package), 2, "is the package itself"),
        ((package, "--sbom", str(tmp_path / "none/x.json")), 2, "cannot be written"),
        (("resnet18", "--sbom", "x.json"), 2, "only packages have --sbom"),
        ((package, "--sbom", "-", "--require-signature"), 2, "no key is trusted"),
        ((package, "--sbom", "-", "--public-key", "p.pem"), 2, "a signature is required"),
    ):
        assert said(*arguments)[0] == code
        assert message in said(*arguments)[1]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert "must be seconds since 1970" in said(package, "--sbom", "-")[1]
    monkeypatch.setitem(sys.modules, "cyclonedx.schema", None)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert said(package, "--sbom", "-")[0] == 4
