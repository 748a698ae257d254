"""What an aarch64 board answers, beside this x86 machine: INT8, float16, and float16 that overflows there alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble
from dlx_deploy.runtime.tasks.arrays import Tolerance
from tests.runtime.conftest import SHAPE, make_images, metadata, tiny_contents

from .board import NAME, Board
from .conftest import JUDGED, Built

pytestmark = pytest.mark.board
THERE = Path(__file__).with_name("there.py")


def copied(board: Board, *files: Path) -> None:
    """``files`` into the user's home there."""
    config = board.state / "ssh_config"
    subprocess.run(["scp", "-q", "-F", str(config), *map(str, files), f"{NAME}:"], check=True)


def here(*words: str | Path) -> np.ndarray:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, THERE, *words], capture_output=True, check=True, env=environment)
    return np.array(json.loads(done.stdout))


def compared(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Agreement of the first class, and how far logits are apart; their deviation says what that means."""
    assert np.isfinite(theirs).all()
    return {
        "images": len(ours),
        "same_class": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "identical_rows": int((ours == theirs).all(axis=1).sum()),
        "logits_deviation": float(ours.std()),
    }


def test_predictions_agree_with_those_of_this_machine(board: Board, packages: Built, tmp_path: Path) -> None:
    copied(board, packages.int8, packages.half, packages.images, THERE)
    report = {}
    for name, package, native in (
        ("int8", packages.int8, ""),
        ("float16_exact", packages.half, ""),
        ("float16_native", packages.half, "native"),
    ):
        words = [native] if native else []
        there = board.run(f"python3 there.py {package.name} {packages.images.name} {native}")
        report[name] = compared(here(package, packages.images, *words), np.array(json.loads(there)))
    text = json.dumps(report, indent=1, sort_keys=True)
    Path(os.environ.get("DLX_DEPLOY_BOARD_REPORT", tmp_path / "agreement.json")).write_text(text + "\n")
    print(f"\naarch64 (emulated Neoverse N1) beside x86: {text}")
    assert all(one["images"] == JUDGED for one in report.values())
    assert report["float16_exact"]["same_class"] == 1, "one arithmetic on every machine"
    assert report["float16_exact"]["largest_difference"] < 1e-3
    # An INT8 sum may round the other way once in a while; float16 kernels round each product.
    for name in ("int8", "float16_native"):
        assert report[name]["same_class"] >= 0.98
        assert report[name]["largest_difference"] < 0.25 * report[name]["logits_deviation"]


def overflowing() -> bytes:
    """The tiny classifier in float16, twice: its sums pass 65504 on the way and come back."""
    size = int(np.prod(SHAPE))
    weights = np.zeros((2 * size, 3), np.float16)
    weights[:size], weights[size:] = 16, -16
    for row in range(SHAPE[0]):
        start = size + row * SHAPE[1] * SHAPE[2]
        weights[start : start + SHAPE[1] * SHAPE[2], row // 2] += np.float16(1 / 64)  # exact beside 16
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Flatten", ["half"], ["flat"]),
        helper.make_node("Concat", ["flat", "flat"], ["twice"], axis=1),
        helper.make_node("Gemm", ["twice", "weights"], ["sums"], name="Gemm_0"),
        helper.make_node("Cast", ["sums"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_float16_that_overflows_there_is_refused_by_name_and_seen_by_the_self_test(
    board: Board, tmp_path: Path
) -> None:
    images, labels = make_images(12)
    sums = images[:4].reshape(4, 3, -1).astype(np.float64).sum(axis=2) / 64
    recipe = {"backends": ["onnxruntime-cpu"], "engine": None}
    target = {"name": "cpu-aarch64", "kind": "cpu", "title": "any"}
    contents = tiny_contents(
        images,
        labels,
        metadata=metadata(recipe=recipe, target=target),
        model=overflowing(),
        golden=sums.astype(np.float32),
        tolerance=Tolerance(0.1, 1e-2),
    )
    package = tmp_path / "half-overflow.dlx"
    write_archive(package, assemble(contents))
    ours = [sys.executable, str(package), "selftest"]
    assert subprocess.run(ours, capture_output=True, check=False).returncode == 0, "this machine sums in float32"
    copied(board, package)
    told = board.run(f"python3 {package.name} selftest 2>&1; echo $?")
    assert "(onnxruntime-fp16-aarch64)" in told or "onnxruntime-fp16-aarch64" in told
    assert told.endswith("\n4")
    told = board.run(f"python3 {package.name} selftest --accept-hazards 2>&1; echo $?")
    assert "golden image 0 differs" in told
    assert "inf" in told or "nan" in told
    assert told.endswith("\n5")
