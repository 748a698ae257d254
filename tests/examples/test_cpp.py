"""examples/cpp: the same pixels and the same answers as the package's own runtime, without Python.

The framing needs a C++ compiler alone. What runs a model needs ONNX Runtime's headers, which no Python package brings:
``ONNXRUNTIME_ROOT`` names a folder with include/ and lib/, else those of the system are taken, else it is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
from dlx_deploy.runtime.predictor import load
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.images import fit_image

CPP = Path(__file__).parents[2] / "examples" / "cpp"
ROOTS = [Path(os.environ.get("ONNXRUNTIME_ROOT", "/usr")), Path("/usr"), Path("/usr/local")]
COMPILER = shutil.which("c++") or shutil.which("g++")
SHAPE = (12, 10, 3)
FRAMINGS = {
    "squash": {},
    "bicubic": {"interpolation": "bicubic"},
    "crop": {"resize": "crop", "resize_size": [16, 16], "interpolation": "bicubic"},
    "wide crop": {"resize": "crop", "resize_size": [13, 19]},
    "floored crop": {"resize": "crop-floor", "resize_size": [15, 15]},
    "letterbox": {"resize": "letterbox", "fill": [9, 99, 199], "color_order": "bgr"},
}

DRIVER = """
#include <cstdio>
#include "framing.hpp"
int main(int, char** argv) {
    const Contract c = read_contract(argv[1]);
    int size[3];
    while (std::fread(size, sizeof(int), 3, stdin) == 3) {
        Picture p{size[1], size[0], size[2], std::vector<uint8_t>(size_t(size[0]) * size[1] * size[2])};
        if (std::fread(p.pixels.data(), 1, p.pixels.size(), stdin) != p.pixels.size()) return 1;
        const auto out = framed(p, c);
        std::fwrite(out.data(), 1, out.size(), stdout);
    }
}
"""


def has_headers() -> bool:
    found = (root / "include" / sub / "onnxruntime_cxx_api.h" for root in ROOTS for sub in ("", "onnxruntime"))
    return any(path.is_file() for path in found)


def model(batch: int | None = None) -> bytes:
    """Logits of an image: the means of its three colours."""
    mean = np.kron(np.ones((SHAPE[0] * SHAPE[1], 1)), np.eye(3)).astype(np.float32) / (SHAPE[0] * SHAPE[1])
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mean"], ["logits"]),
    ]
    size = batch or "batch"
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [size, *SHAPE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, 3])
    graph = helper.make_graph(nodes, "colour", [images], [logits], [numpy_helper.from_array(mean, "mean")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


Make = Callable[..., Path]


@pytest.fixture
def make_package(tmp_path: Path) -> Make:
    """Writes a package; ``error``: its golden logits are off by so much."""

    def make(preprocessing: dict[str, Any], error: float = 0, exact: bool = False, batch: int | None = None) -> Path:
        images = np.random.default_rng(0).integers(0, 90, (3, *SHAPE), np.uint8)
        images += (np.eye(3) * 150).astype(np.uint8)[:, None, None, :]
        task = image_classification(framing(preprocessing), ["light red", "green", "blue"])
        metadata: dict[str, Any] = {
            "name": "colour",
            "version": "1",
            "target": {"name": "cpu-x86_64", "kind": "cpu", "title": "any"},
            "preprocessing": preprocessing,
            "precision": {"plan": "fp32"},
            "execution": {"exact_qdq": exact},
            "recipe": {},
            "budgets": {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0},
            "accuracy": {},
        }
        contents = PackageContents(
            task=task,
            metadata=metadata,
            model=model(batch),
            golden_inputs={"images": images},
            golden_outputs={"logits": images.mean(axis=(1, 2)).astype(np.float32) + np.float32(error)},
            tolerances={"logits": Tolerance(1e-3, 1e-4)},
            reference=make_reference(task, {"images": images}, {"label": np.arange(3), "teacher": np.arange(3)}),
            manifest=b"{}\n",
            model_card="# colour\n",
            batch=batch,
        )
        path = tmp_path / "colour.dlx"
        write_archive(path, assemble(contents))
        return path

    return make


def framing(preprocessing: dict[str, Any]) -> Framing:
    known = {key: value for key, value in preprocessing.items() if key not in ("resize_size", "fill")}
    fill = tuple(preprocessing.get("fill", (0,)))
    known["resize"], _, offset = known["resize"].partition("-")
    return Framing(
        *SHAPE, box=tuple(preprocessing.get("resize_size", ())), fill=fill, crop_offset=offset or "round", **known
    )


def unpacked(package: Path, folder: Path) -> Path:
    command = [sys.executable, str(CPP / "unpack.py"), str(package), str(folder)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    subprocess.run(command, check=True, env=environment, timeout=120)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames pictures from stdin."""
    if COMPILER is None:
        pytest.skip("no C++ compiler is here")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.cpp").write_text(DRIVER)
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", f"-I{CPP}"]
    subprocess.run([COMPILER, *options, "driver.cpp", "-o", "driver"], cwd=folder, check=True, timeout=120)
    return folder / "driver"


@pytest.mark.parametrize("name", FRAMINGS)
def test_pixels_are_those_of_the_runtime(driver: Path, make_package: Make, tmp_path: Path, name: str) -> None:
    rule = {"resize": "squash", **FRAMINGS[name]}
    folder = unpacked(make_package(rule), tmp_path / "out")
    rng = np.random.default_rng(1)
    sizes = [(12, 10), (1, 1), (97, 61), (5, 33), (12, 40), (64, 10), (3, 200), (250, 7)]
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes] + [rng.integers(0, 2, (30, 30, 1)) * 255]
    given = b"".join(np.array(p.shape, "<i4").tobytes() + p.astype(np.uint8).tobytes() for p in pictures)
    out = subprocess.run([driver, folder / "contract.txt"], input=given, stdout=subprocess.PIPE, check=True, timeout=60)
    found = np.frombuffer(out.stdout, np.uint8).reshape(-1, *SHAPE)
    assert len(found) == len(pictures)
    for pixels, picture in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(pixels, fit_image(picture.astype(np.uint8), framing(rule)))


def test_a_filter_that_the_example_lacks_is_refused(driver: Path, make_package: Make, tmp_path: Path) -> None:
    folder = unpacked(make_package({"resize": "squash", "interpolation": "lanczos"}), tmp_path / "out")
    one = np.array([1, 1, 3], "<i4").tobytes() + b"abc"
    command = [driver, folder / "contract.txt"]
    done = subprocess.run(command, input=one, capture_output=True, check=False, timeout=60)
    assert done.returncode
    assert b"interpolation lanczos is not in this example" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not has_headers(), reason="ONNX Runtime's C++ headers are not here (ONNXRUNTIME_ROOT)")
def test_a_program_without_python_answers_as_the_package_does(make_package: Make, tmp_path: Path) -> None:
    root = [f"-DONNXRUNTIME_ROOT={ROOTS[0]}"]
    subprocess.run(["cmake", "-S", CPP, "-B", tmp_path / "build", *root], check=True, timeout=120)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, timeout=300)
    rng = np.random.default_rng(2)
    paths = [tmp_path / f"{i}.ppm" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + 9 * i, 31, 3), np.uint8)).save(path)

    def classify(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [tmp_path / "build" / "classify", folder, *paths]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    for i, (exact, batch) in enumerate([(False, None), (True, None), (False, 2)]):
        package = make_package({"resize": "crop", "resize_size": [16, 16]}, exact=exact, batch=batch)
        done = classify(unpacked(package, tmp_path / f"out{i}"))
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("self-test passed: 3 golden inputs, at most ")
        answers = load(package, threads=1).predict(paths)
        for line, path, label, logits in zip(
            done.stdout.splitlines(), paths, answers.labels, answers.logits, strict=True
        ):
            name, said, value = line.split("\t")
            assert (name, said) == (str(path), label)
            assert float(value) == pytest.approx(logits.max(), rel=1e-6)
    done = classify(unpacked(make_package({}, error=1.0), tmp_path / "wrong"))
    assert (done.returncode, done.stdout) == (5, "")
    assert "error: self-test failed: golden input 0 is off by 1" in done.stderr
