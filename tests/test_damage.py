"""The self-test of a package that was built: it passes as it is, and finds small damage to any layer's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands.selftest import SelfTestResult, self_test
from dlx_deploy.runtime.errors import SelfTestFailed
from dlx_deploy.runtime.package.contents import Package, open_package
from dlx_deploy.runtime.predictor import Predictor

from .conftest import PACKAGE


@pytest.fixture(scope="module")
def package(built: Path) -> Package:
    return open_package(built / PACKAGE)


def outcome(package: Package) -> SelfTestResult:
    return self_test(Predictor(package, BackendOptions("onnxruntime-cpu", threads=1)))


def test_it_computes_the_golden_logits_again(package: Package) -> None:
    (result,) = outcome(package).outputs
    assert result.max_abs_diff < 0.1 * result.atol
    largest = float(np.abs(package.golden_outputs["logits"]).max())
    assert result.atol == package.tolerances["logits"].exact_atol
    assert 0.004 * largest < result.atol < 0.02 * largest < package.tolerances["logits"].atol


@pytest.mark.parametrize("damage", ["scales 5 % off", "filters swapped"])
def test_small_damage_to_any_layer_is_found(package: Package, damage: str) -> None:
    model = onnx.load_model_from_string(package.model)
    ending = "/scale/fp16" if damage.startswith("scales") else "/quantized"
    weights = [t for t in model.graph.initializer if t.name.endswith(f".weight{ending}")]
    assert len(weights) >= 8
    for tensor in weights:
        before = numpy_helper.to_array(tensor)
        after = before * np.float16(1.05) if damage.startswith("scales") else np.roll(before, 1, axis=0)
        tensor.CopyFrom(numpy_helper.from_array(after.astype(before.dtype), tensor.name))
        with pytest.raises(SelfTestFailed, match=r"golden image \d+ differs"):
            outcome(replace(package, model=model.SerializeToString()))
        tensor.CopyFrom(numpy_helper.from_array(before, tensor.name))
    outcome(replace(package, model=model.SerializeToString()))
