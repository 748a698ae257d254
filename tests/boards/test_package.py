"""A package on a board that has nothing of dlx-deploy: tested, judged, damaged, served."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from typing import Any

import numpy as np
import pytest

from .board import Board, free_port
from .conftest import JUDGED, Built
from .test_numbers import copied

pytestmark = pytest.mark.board


@pytest.fixture(scope="module")
def there(board: Board, packages: Built) -> Built:
    """The packages and the pictures, on the board."""
    copied(board, packages.int8, packages.half)
    tar = ["tar", "-C", packages.pictures.parent, "-cf", "-", "pictures"]
    packed = subprocess.run(tar, capture_output=True, check=True)
    asked = [*board.ssh.split(), "emulated", "tar -xf -"]
    subprocess.run(asked, input=packed.stdout, check=True, capture_output=True)
    return packages


def test_it_is_tested_and_judged_there(board: Board, there: Built) -> None:
    for package in (there.int8, there.half):
        assert "self-test passed" in board.run(f"python3 {package.name} selftest")
    told = json.loads(board.run(f"python3 {there.int8.name} verify --data pictures --json"))
    assert told["verdict"]["images"] == JUDGED
    assert told["verdict"]["verdict"] == "pass"
    print(f"\nverify on the board: teacher {told['teacher_accuracy']:.4f}, package {told['accuracy']:.4f}")


def test_a_damaged_package_is_refused_there(board: Board, there: Built) -> None:
    data = bytearray(there.int8.read_bytes())
    with zipfile.ZipFile(there.int8) as packed:
        data[packed.getinfo("model.onnx").header_offset + 2000] ^= 1
    asked = [*board.ssh.split(), "emulated", "cat > damaged.dlx"]
    subprocess.run(asked, input=bytes(data), check=True)
    told = board.run("python3 damaged.dlx predict pictures --json 2>&1; echo $?")
    assert "model.onnx" in told
    assert told.endswith("\n2")


def test_it_is_served_there(board: Board, there: Built) -> None:
    port = free_port()
    board.run(f"(setsid python3 {there.int8.name} serve --port {port} > served 2>&1 < /dev/null & echo $! > pid)")
    address = f"http://127.0.0.1:{port}/v2"
    name = _ready(address)
    images = np.load(there.images)[:3]
    body = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [3, 8, 8, 1], "data": images.ravel().tolist()}]}
    asked = urllib.request.Request(f"{address}/models/{name}/infer", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    logits = np.array(told["outputs"][0]["data"]).reshape(3, 10)
    assert np.isfinite(logits).all()
    gone = "for i in $(seq 100); do kill -0 $(cat pid) 2> /dev/null || break; sleep 0.2; done"
    ended = board.run(f"kill -TERM $(cat pid); {gone}; cat served")
    assert "Traceback" not in ended


def _ready(address: str) -> str:
    """The name of the model, once the server answers."""
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health/ready", timeout=5):
                break
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.3)
    return "digits"
