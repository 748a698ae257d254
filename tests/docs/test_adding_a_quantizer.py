"""docs/adding-a-quantizer.md, followed to the letter; and the examples of docs/quantization.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.kit.runner import improve
from dlx_deploy.graph.quantization.plan import QuantizationPlan, plan_bytes, read_plan
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.quantization.scheme import TENSORRT
from dlx_deploy.progress import silent

from ..arrays import samples
from ..graph.quantization.kit.states import started
from ..onnx_fixtures import images, residual_net
from .pages import block

INPUTS = samples(images(40))


def python(*texts: str) -> dict[str, Any]:
    """What the page's Python blocks define, one after the other."""
    names: dict[str, Any] = {}
    for text in texts:
        exec(compile(block("adding-a-quantizer.md", "python", text), text, "exec"), names)
    return names


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(residual_net(opset=20).SerializeToString())
    return tmp_path / "model.onnx"


def test_a_plan_from_a_script_of_ones_own(source: Path, tmp_path: Path) -> None:
    report = quantize_model(source, tmp_path / "a.onnx", INPUTS, QuantizationRequest("tensorrt"))
    (tmp_path / "plan.json").write_bytes(plan_bytes(report.plan))
    (tmp_path / "powers.py").write_text(block("adding-a-quantizer.md", "python", "power-of-two"))
    arguments = [tmp_path / "powers.py", tmp_path / "plan.json", tmp_path / "new.json"]
    subprocess.run([sys.executable, *map(str, arguments)], check=True)
    given = read_plan(tmp_path / "new.json")
    again = quantize_model(source, tmp_path / "b.onnx", INPUTS, QuantizationRequest("tensorrt", given=given))
    index = Index(load(tmp_path / "b.onnx"))
    scales = [float(index.array(f"{name}/scale")) for name in again.plan.tensors]
    assert len(scales) == 4
    assert all(np.log2(scale).is_integer() for scale in scales)
    assert {tensor.source for tensor in again.plan.tensors.values()} == {"power-of-two"}


def test_a_range_method(source: Path, tmp_path: Path) -> None:
    python("class ThreeSigma", "def calibrate")["calibrate"](source, tmp_path, INPUTS)
    plan = read_plan(tmp_path / "plan.json")
    usual = quantize_model(source, tmp_path / "b.onnx", INPUTS, QuantizationRequest("tensorrt")).plan
    assert {tensor.source for tensor in plan.tensors.values()} == {"three-sigma"}
    scales = {name: (tensor.scale or 0, usual.tensors[name].scale or 0) for name, tensor in plan.tensors.items()}
    assert all(mine <= widest for mine, widest in scales.values())
    assert any(mine < 0.9 * widest for mine, widest in scales.values())


def test_a_rounding(source: Path, tmp_path: Path) -> None:
    python("def stochastic", "def quantize")["quantize"](source, tmp_path / "a.onnx", INPUTS)
    quantize_model(source, tmp_path / "b.onnx", INPUTS, QuantizationRequest("tensorrt"))
    mine, usual = (
        Index(load(tmp_path / name)).array("conv2.weight/quantized").astype(int) for name in ("a.onnx", "b.onnx")
    )
    assert set(np.unique(mine - usual)) == {-1, 0, 1}
    exact, rounded = (run_onnx(tmp_path / name, INPUTS, exact_qdq=True)["logits"] for name in ("model.onnx", "a.onnx"))
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_the_plans_of_the_page_on_quantization(source: Path, tmp_path: Path) -> None:
    for text in ('"readers"', '"fp32"'):
        (tmp_path / "plan.json").write_text(block("quantization.md", "json", text))
        assert read_plan(tmp_path / "plan.json").schema == 1
    request = QuantizationRequest("tensorrt", given=read_plan(tmp_path / "plan.json"))
    report = quantize_model(source, tmp_path / "q.onnx", INPUTS, request)
    assert report.layers["conv2/Conv"] == "fp32"


def test_a_step_of_ones_own() -> None:
    setting, state = started(residual_net(opset=20), TENSORRT, images(40))
    step = python("def tighter")["TIGHTER"]
    found = improve(state, setting, [step], INPUTS, True, silent)
    (decision,) = found.decisions.steps
    assert decision.step == "tighter ranges"
    assert decision.sqnr_db_after is not None
    proposed = step.propose(state, setting, silent)
    assert proposed.plan.tensors["x"].scale == pytest.approx(0.9 * state.plan.tensors["x"].scale)
    given = QuantizationPlan(schema=1, tensors={"x": state.plan.tensors["x"]})
    setting, state = started(residual_net(opset=20), TENSORRT, images(40), given)
    assert step.propose(state, setting, silent).plan.tensors["x"] == state.plan.tensors["x"]
