"""Packages on the Pythons and ONNX Runtimes that devices have: every answer is that of the build.

``pytest -m matrix``: not part of the default run, as it installs wheels. DLX_MATRIX_BUILD names a folder with a
finished build of images, whose packages are then run instead of a tiny build's. What is not on this machine is skipped
with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.supported import MATRIX

from .conftest import dlx, tiny
from .interpreters import Absent, make_environment, newest_python
from .test_build_text import built_text, options, texts  # noqa: F401  # fixtures

pytestmark = pytest.mark.matrix
INPUTS = 6


@dataclass(frozen=True)
class Environment:
    """A Python with numpy, ONNX Runtime, Pillow and tokenizers."""

    title: str
    python: Path


@dataclass(frozen=True)
class Case:
    """A package with labelled data for ``verify`` and inputs for ``predict``."""

    package: Path
    data: Path
    inputs: tuple[str, ...]


@pytest.fixture(scope="session", params=MATRIX, ids=lambda pair: f"python{pair[0]}-onnxruntime{pair[1]}")
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    version, onnxruntime = request.param
    try:
        if request.param == MATRIX[-1]:
            version = newest_python()
        wheels = ["numpy", f"onnxruntime=={onnxruntime}.*", "pillow", "tokenizers"]
        python = make_environment(tmp_path_factory.mktemp("runtime") / "venv", version, *wheels)
    except Absent as e:
        pytest.skip(f"not run on ONNX Runtime {onnxruntime}: {e}")
    code = "import onnxruntime; print(onnxruntime.__version__)"
    installed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert installed.startswith(f"{onnxruntime}.")
    return Environment(f"Python {version}, ONNX Runtime {installed}", python)


@pytest.fixture(scope="session")
def image_cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    given = os.environ.get("DLX_MATRIX_BUILD")
    folder = Path(given) if given else tmp_path_factory.mktemp("built-for-matrix")
    if not given:
        done = dlx("build", "-t", "jetson", "-t", "cpu-x86_64", *tiny(), cwd=folder)
        assert done.code == 0, done.err
    pictures = tmp_path_factory.mktemp("pictures")
    data = data_of(folder, "test.images.npy")
    rows = np.load(data / "test.images.npy")[:INPUTS]
    for i, row in enumerate(rows):
        Image.fromarray(row.squeeze()).save(pictures / f"{i}.png")
    Image.fromarray(rows[0].squeeze().repeat(9, 0).repeat(7, 1)).save(pictures / "larger.png")
    inputs = tuple(str(path) for path in sorted(pictures.iterdir()))
    return [Case(package, data, inputs) for package in sorted((folder / "dist").glob("*.dlx"))]


@pytest.fixture(scope="session")
def text_cases(built_text: Path) -> list[Case]:  # noqa: F811
    data = data_of(built_text, "test.texts.json")
    inputs = json.loads((data / "test.texts.json").read_text())[:INPUTS]
    return [Case(package, data, tuple(inputs)) for package in sorted((built_text / "dist").glob("*.dlx"))]


@pytest.fixture(scope="session")
def int4_cases(built_text: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:  # noqa: F811
    """As MatMulNBits, which the oldest ONNX Runtime has, and as INT4 DequantizeLinear, which it has not."""
    asked = options(texts, "quantize.precision='int4'", "compile.engine='off'")  # layers so small are unpacked
    folder = tmp_path_factory.mktemp("int4")
    shutil.copytree(built_text / ".dlx", folder / ".dlx")
    done = dlx("build", "-t", "cpu-x86_64", "-t", "jetson", *asked, cwd=folder)
    assert done.code == 0, done.err
    packages = sorted((folder / "dist").glob("*.dlx"))
    return [Case(package, data_of(folder, "test.texts.json"), ()) for package in packages]


def data_of(folder: Path, name: str) -> Path:
    """The data that a build in ``folder`` made: a folder with ``dataset.json``."""
    return max((folder / ".dlx" / "store").glob(f"*/*/{name}"), key=lambda path: path.stat().st_mtime).parent


def ask(python: Path | str, case: Case, command: str, *more: str) -> Any:
    """What the package's own command says as JSON, where nothing of dlx-deploy can be imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    line = [str(python), "-I", str(case.package), command, "--json", "--backend", "onnxruntime-cpu", *more]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=clean, timeout=120)
    assert done.returncode in (0, 3, 6) if command == "verify" else not done.returncode, done.stderr
    assert "warning" not in done.stderr
    return json.loads(done.stdout)


def check(environment: Environment, case: Case) -> None:
    """Self-test, predictions and accuracy are those of the build."""
    with zipfile.ZipFile(case.package) as archive:
        meta = json.loads(archive.read("package.json"))
    tested = ask(environment.python, case, "selftest")
    print(f"{environment.title}: {case.package.name}: logits within {tested['max_abs_diff']:.3g}")
    (row,) = (r for r in meta["accuracy"]["rows"] if r["model"] == meta["accuracy"]["shipped"])
    verified = ask(environment.python, case, "verify", "--data", str(case.data))
    assert {"b": verified["b"], "c": verified["c"], "changed": verified["flips"]["changed"]} == row["evidence"]
    assert verified["accuracy"] == row["score"]
    predictions_here = ask(environment.python, case, "predict", *case.inputs)["predictions"]
    expected = ask(sys.executable, case, "predict", *case.inputs)["predictions"]
    assert [p["top"][0]["label"] for p in predictions_here] == [p["top"][0]["label"] for p in expected]
    sure = [[p["top"][0]["probability"] for p in predictions] for predictions in (predictions_here, expected)]
    np.testing.assert_allclose(*sure, atol=0.01)


def test_image_packages_answer_as_in_the_build(environment: Environment, image_cases: list[Case]) -> None:
    assert any("jetson" in case.package.name for case in image_cases)
    for case in image_cases:
        check(environment, case)


def test_text_packages_answer_as_in_the_build(environment: Environment, text_cases: list[Case]) -> None:
    assert len(text_cases) == 2
    for case in text_cases:
        check(environment, case)


def test_packages_with_int4_weights_answer_as_in_the_build(environment: Environment, int4_cases: list[Case]) -> None:
    assert len(int4_cases) == 2
    for case, sign in zip(int4_cases, (b"MatMulNBits", b"DequantizeLinear"), strict=True):
        with zipfile.ZipFile(case.package) as archive:
            assert sign in archive.read("model.onnx")
        ask(environment.python, case, "selftest")
