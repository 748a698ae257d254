"""examples/device/run_on_device.py on a small package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "device" / "run_on_device.py"


def colour_model() -> bytes:
    """Logits of a 1 x 1 RGB image: its three values, so that class 0 is red, 1 green, 2 blue."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["logits"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 1, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "colour", [images], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[[float], Path]:
    """Writes a package whose golden logits are off by so much."""
    images = (np.eye(3) * 200).astype(np.uint8).reshape(3, 1, 1, 3)
    task, numbers = image_classification(Framing(1, 1, 3), ["red", "green", "blue"]), np.arange(3)
    metadata: dict[str, Any] = {
        "name": "colour",
        "version": "1",
        "target": {"name": "cpu-x86_64", "kind": "cpu", "title": "any"},
        "preprocessing": {},
        "precision": {"plan": "fp32"},
        "execution": {"exact_qdq": False},
        "recipe": {},
        "budgets": {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0},
        "accuracy": {},
    }

    def make(error: float) -> Path:
        contents = PackageContents(
            task=task,
            metadata=metadata,
            model=colour_model(),
            golden_inputs={"images": images},
            golden_outputs={"logits": images.reshape(3, 3).astype(np.float32) + np.float32(error)},
            tolerances={"logits": Tolerance(1e-4, 1e-4)},
            reference=make_reference(task, {"images": images}, {"label": numbers, "teacher": numbers}),
            manifest=b'{"schema": 1}\n',
            model_card="# colour\n",
        )
        path = tmp_path / "colour.dlx"
        write_archive(path, assemble(contents))
        return path

    return make


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The script away from this repository, so that it can use nothing of dlx-deploy but the package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def test_device_script_checks_times_and_classifies(make_package: Callable[[float], Path], tmp_path: Path) -> None:
    image = tmp_path / "grass.png"
    Image.new("RGB", (5, 4), (10, 240, 30)).save(image)
    done = run(make_package(0), image)
    assert done.returncode == 0, done.stderr
    latency, answer = done.stdout.splitlines()
    assert latency.startswith("p90 ")
    assert " ms on " in latency
    assert answer == f"{image}: green (100%)"


def test_device_script_stops_where_the_self_test_fails(make_package: Callable[[float], Path]) -> None:
    done = run(make_package(3))
    assert done.returncode == 5
    assert "golden" in done.stderr
    assert done.stdout == ""


def test_device_script_in_process(make_package: Callable[[float], Path], tmp_path: Path) -> None:
    image = tmp_path / "sky.png"
    Image.new("RGB", (1, 1), (10, 20, 200)).save(image)
    namespace: dict[str, Any] = {"__name__": "script"}
    exec(compile(SCRIPT.read_text(encoding="utf-8"), str(SCRIPT), "exec"), namespace)
    assert namespace["classify_in_process"](str(make_package(0)), [str(image)]) == ["blue"]


def test_device_script_without_a_package_says_how_to_use_it() -> None:
    done = run()
    assert done.returncode == 1
    assert "PACKAGE.dlx" in done.stderr
