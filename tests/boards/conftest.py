"""A board for the tests marked ``board``, and packages for it, made once; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import dlx, tiny

from .board import Board, emulated_board
from .host import aarch64_programs, missing
from .rootfs import Unavailable, root_file_system

JUDGED = 200
"""Images of the test split that are judged on the board."""


@dataclass(frozen=True)
class Built:
    """Two packages of one build for other machines than this: INT8 for an Arm CPU, float16 for a Jetson.

    ``images``: uint8[200, 8, 8, 1] of the test split, as a file; ``pictures``: the same as labelled image files.
    """

    int8: Path
    half: Path
    images: Path
    pictures: Path


@pytest.fixture(scope="session")
def board() -> Iterator[Board]:
    """One that runs."""
    reason = missing()
    if reason:
        pytest.skip(f"no board can be emulated here: {reason}")
    with aarch64_programs() as reason:
        if reason:
            pytest.skip(f"no board can be emulated here: {reason}")
        try:
            root = root_file_system()
        except Unavailable as e:
            pytest.skip(f"no root file system for a board can be made here: {e}")
        with emulated_board(root) as running:
            yield running


@pytest.fixture(scope="session")
def packages(board: Board, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Digits, trained for seconds."""
    folder = tmp_path_factory.mktemp("built-for-board")
    shutil.copytree(built / ".dlx", folder / ".dlx")
    for target, more in (("cpu-aarch64", "quantize.precision='int8'"), ("jetson", "quantize.precision='fp16'")):
        done = dlx("build", "--target", target, *tiny(more), cwd=folder)
        assert done.code == 0, done.err
    int8, half = (next((folder / "dist").glob(f"*{target}*.dlx")) for target in ("cpu-aarch64", "jetson"))
    store = next((folder / ".dlx" / "store").glob("*/*/test.images.npy")).parent
    images, labels = (np.load(store / f"test.{name}.npy")[:JUDGED] for name in ("images", "labels"))
    np.save(folder / "images.npy", images)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "pictures" / "test" / str(label) / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze()).save(path)
    return Built(int8, half, folder / "images.npy", folder / "pictures")
