"""A tiny classifier, its images and its package, made in place.

An image of class k is dark noise with two bright rows; the model sums row pairs, so it is right on every one of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.runtime import telling
from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import Package, PackageContents, assemble, make_reference, parse_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.task import Task

LABELS = ["cat", "dog", "owl"]
SHAPE = (6, 4, 3)


def tiny_model(shift: int = 0, batch: int | None = None, kind: int = TensorProto.UINT8, classes: int = 3) -> bytes:
    """The classifier as ONNX; ``shift`` moves its answers by so many classes, which damages it."""
    weights = np.zeros((*SHAPE, classes), np.float32)
    for row in range(SHAPE[0]):
        weights[row, :, :, (row // 2 + shift) % classes] = 1 / (255 * 24)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits"]),
    ]
    size = batch or "batch"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, [size, *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, classes])],
        [numpy_helper.from_array(weights.reshape(-1, classes), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``n`` images, uint8[n, 6, 4, 3], and their labels, int64[n]."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, *SHAPE), dtype=np.uint8)
    labels = np.arange(n) % len(LABELS)
    for image, k in zip(images, labels, strict=True):
        image[2 * k : 2 * k + 2] += 150
    return images, labels


def expected_logits(images: np.ndarray) -> np.ndarray:
    rows = images.reshape(len(images), 3, -1).astype(np.float64).sum(axis=2)
    return (rows / (255 * 24)).astype(np.float32)


def metadata(**changes: Any) -> dict[str, Any]:
    """What a builder would say of the tiny package."""
    return {
        "name": "tiny",
        "version": "1.2.3",
        "target": {"name": "cpu-x86_64", "kind": "cpu", "title": "any x86-64"},
        "preprocessing": {
            "height": 6,
            "width": 4,
            "channels": 3,
            "resize": "bilinear",
            "normalisation": "in the graph",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "precision": {"plan": "fp32", "style": "cpu", "layers": {"Gemm_0": "fp32"}},
        "execution": {"exact_qdq": False},
        "recipe": {"seed": 0},
        "budgets": {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0},
        "accuracy": {"verdict": "pass"},
        **changes,
    }


def tiny_task(labels: list[str] | None = None) -> Task:
    return image_classification(Framing(*SHAPE), labels or LABELS)


def tiny_reference(images: np.ndarray, labels: Any, teacher: Any) -> dict[str, np.ndarray]:
    columns = {"label": np.asarray(labels, np.int64), "teacher": np.asarray(teacher, np.int64)}
    return make_reference(tiny_task(), {"images": images}, columns)


def tiny_contents(images: np.ndarray, labels: np.ndarray, **changes: Any) -> PackageContents:
    """``golden``: the golden logits; ``tolerance``: theirs."""
    contents = PackageContents(
        task=tiny_task(),
        metadata=metadata(),
        model=tiny_model(),
        golden_inputs={"images": images[:4]},
        golden_outputs={"logits": changes.pop("golden", expected_logits(images[:4]))},
        tolerances={"logits": changes.pop("tolerance", Tolerance(1e-4, 1e-4))},
        reference=tiny_reference(images, labels, labels),
        manifest=b'{"schema": 1}\n',
        model_card="# tiny\n",
    )
    return replace(contents, **changes)


@pytest.fixture(autouse=True)
def no_work_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command says on stderr does not depend on how fast this machine is: no signs of life after 5 s."""
    monkeypatch.setattr(telling, "FIRST_S", 3600.0)


@pytest.fixture(scope="session")
def data() -> tuple[np.ndarray, np.ndarray]:
    """300 images that the package's reference table knows, and their labels."""
    return make_images(300)


@pytest.fixture(scope="session")
def contents(data: tuple[np.ndarray, np.ndarray]) -> PackageContents:
    return tiny_contents(*data)


@pytest.fixture(scope="session")
def files(contents: PackageContents) -> dict[str, bytes]:
    return assemble(contents)


@pytest.fixture(scope="session")
def dlx(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "tiny.dlx"
    write_archive(path, files)
    return path


@pytest.fixture(scope="session")
def package(files: dict[str, bytes]) -> Package:
    return parse_package(files, "tiny.dlx")


@pytest.fixture(scope="session")
def predictor(package: Package) -> Predictor:
    return Predictor(package, BackendOptions(threads=1))


@pytest.fixture
def make_predictor(data: tuple[np.ndarray, np.ndarray]) -> Any:
    """A predictor of the tiny package with some contents changed."""

    def make(**changes: Any) -> Predictor:
        return Predictor(
            parse_package(assemble(tiny_contents(*data, **changes)), "tiny.dlx"), BackendOptions(threads=1)
        )

    return make


@pytest.fixture(scope="session")
def helpers() -> Any:
    """The functions of this file, for tests that make their own packages."""

    class Helpers:
        labels = LABELS
        shape = SHAPE
        tiny_model = staticmethod(tiny_model)
        make_images = staticmethod(make_images)
        expected_logits = staticmethod(expected_logits)
        metadata = staticmethod(metadata)
        tiny_contents = staticmethod(tiny_contents)
        tiny_task = staticmethod(tiny_task)
        tiny_reference = staticmethod(tiny_reference)

    return Helpers
