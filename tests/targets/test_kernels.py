"""The table of integer kernels: what it says of a CPU, and that it is what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from dlx_deploy.targets import list_targets
from dlx_deploy.targets.kernels import NOT_MEASURED, integer_kernels, kernel_table

REPOSITORY = Path(__file__).parents[2]


def test_what_nobody_measured_changes_nothing() -> None:
    assert integer_kernels("") == NOT_MEASURED
    assert not NOT_MEASURED.operators
    assert not NOT_MEASURED.float_images


def test_only_what_gains_is_written() -> None:
    table = kernel_table()
    cpu = replace(
        table.cpus["avx2"],
        speedup={"Mul": table.least_speedup, "Sigmoid": table.least_speedup - 0.01},
        image_convolution={"3x3": table.most_image_convolution, "1x5": 0.91, "3x7": 0.2},
    )
    paying = replace(table, cpus={"avx2": cpu}).paying("avx2")
    assert paying.operators == {"Mul"}
    assert paying.float_images == {(3, 3), (3, 7)}
    assert paying.least_side == table.least_image_side


@pytest.mark.parametrize("cpu", ["avx2", "avx512-vnni"])
def test_operators_between_layers_pay_and_softmax_does_not(cpu: str) -> None:
    paying = integer_kernels(cpu)
    assert {"Add", "Concat", "HardSigmoid", "HardSwish", "Mul", "Resize", "Sigmoid"} <= paying.operators
    assert not {"Softmax", "LayerNormalization", "Gelu"} & paying.operators
    assert (3, 3) in paying.float_images


def test_profiles_go_by_what_was_measured() -> None:
    assert {p.name: p.quantization.kernels for p in list_targets() if p.quantization.kernels} == {"cpu-x86_64": "avx2"}


def test_the_table_is_that_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks/compression"), *sys.path])
    import kernels

    found = json.loads((REPOSITORY / "benchmarks/results/kernels.json").read_text(encoding="utf-8"))
    written = (REPOSITORY / "dlx_deploy/targets/kernels.toml").read_text(encoding="utf-8")
    assert kernels.table_of(found) == written
