"""Shared by the tests of targets: a ResNet-50 as fused layers, and a way to write a board file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlx_deploy.targets import LayerCost, Precision

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

# He et al. 2015, table 1: blocks, width of the 3x3 convolution, side of the output; stride in the 3x3 (v1.5)
STAGES = ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7))


def resnet50(dtype: Precision) -> list[LayerCost]:
    """ResNet-50 v1.5 at 224 x 224 as 56 fused layers: 53 convolutions, two poolings, one fully connected layer."""
    size = BYTES[dtype]

    def conv(name: str, cin: int, cout: int, kernel: int, sides: tuple[int, int], residual: bool = False) -> LayerCost:
        before, after = sides
        return LayerCost(
            name=name,
            op="Conv",
            macs=kernel * kernel * cin * cout * after * after,
            weight_bytes=kernel * kernel * cin * cout * size,
            input_bytes=(cin * before * before + residual * cout * after * after) * size,
            output_bytes=cout * after * after * size,
            dtype=dtype,
        )

    def pool(name: str, channels: int, sides: tuple[int, int]) -> LayerCost:
        areas = [channels * side * side * size for side in sides]
        return LayerCost(
            name=name, op="Pool", macs=0, weight_bytes=0, input_bytes=areas[0], output_bytes=areas[1], dtype=dtype,
            memory_bound=True,
        )  # fmt: skip

    def blocks() -> Iterator[LayerCost]:
        cin, side = 64, 56
        for stage, (count, width, out) in enumerate(STAGES):
            for i in range(count):
                name = f"stage{stage + 1}.{i}"
                yield conv(f"{name}.reduce", cin, width, 1, (side, side))
                yield conv(f"{name}.conv", width, width, 3, (side, out))
                if i == 0:
                    yield conv(f"{name}.shortcut", cin, 4 * width, 1, (side, out))
                yield conv(f"{name}.expand", width, 4 * width, 1, (out, out), residual=True)
                cin, side = 4 * width, out

    return [
        conv("stem", 3, 64, 7, (224, 112)),
        pool("maxpool", 64, (112, 56)),
        *blocks(),
        pool("avgpool", 2048, (7, 1)),
        conv("fc", 2048, 1000, 1, (1, 1)),
    ]


@pytest.fixture
def resnet50_layers() -> Callable[[Precision], list[LayerCost]]:
    return resnet50


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """``board(text, name="board.toml")`` writes a board file and gives its path."""

    def write(text: str, name: str = "board.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
