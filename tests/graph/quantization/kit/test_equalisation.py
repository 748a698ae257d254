from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, load, to_bytes
from dlx_deploy.graph.quantization.kit import equalisation
from dlx_deploy.graph.quantization.kit.efforts import EQUAL, SMOOTH
from dlx_deploy.graph.quantization.kit.equalisation import equalise, smooth
from dlx_deploy.graph.quantization.kit.judge import Judge
from dlx_deploy.graph.quantization.kit.runner import improve
from dlx_deploy.graph.quantization.plan import Divided, QuantizationPlan, plan_bytes, read_plan
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.quantization.scheme import CPU, TENSORRT
from dlx_deploy.progress import silent

from ....arrays import quantize_model, samples
from ....onnx_fixtures import Net, images, residual_net
from .states import started


def uneven() -> ModelProto:
    """Two convolutions, the first of which makes three channels two hundred times as large as the others."""
    net = Net()
    net.head(
        net.add("relu2", "Relu", net.conv("b", net.add("relu", "Relu", net.conv("a", net.planes(), 1, 8)), 8, 8)), 8
    )
    for name, axis, by in (("a.weight", 0, 200), ("a.bias", 0, 200), ("b.weight", 1, 1 / 200)):
        tensor = next(t for t in net.constants if t.name == name)
        values = np.moveaxis(numpy_helper.to_array(tensor).copy(), axis, 0)
        values[1:4] *= by
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(values, 0, axis)), name))
    return net.model()


def normed() -> ModelProto:
    """LayerNormalization with outlying channels, and two products that read it: float32[n, 5, 16] → [n, 5, 4]."""
    random = np.random.default_rng(0)
    gains = np.ones(16)
    gains[[2, 9]] = 60
    weights = {name: random.normal(0, 0.3, (16, 8)) / gains[:, None] for name in ("q", "k")}
    arrays = {"gain": gains, "shift": 0.1 * gains, **weights}
    nodes = [
        helper.make_node("Identity", ["tokens"], ["t"], name="t/Identity"),
        helper.make_node("LayerNormalization", ["t", "gain", "shift"], ["n"], name="ln/LayerNormalization"),
        helper.make_node("MatMul", ["n", "q"], ["nq"], name="q/MatMul"),
        helper.make_node("MatMul", ["n", "k"], ["nk"], name="k/MatMul"),
        helper.make_node("Mul", ["nq", "nk"], ["logits"], name="m/Mul"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 5, s]) for n, s in (("tokens", 16), ("logits", 8))
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tokens(count: int = 32) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(count, 5, 16)).astype(np.float32)


@pytest.mark.parametrize("step", [EQUAL, SMOOTH], ids=lambda step: step.name)
def test_a_channel_that_is_far_larger_no_longer_takes_the_others_steps(step: object) -> None:
    setting, state = started(uneven(), TENSORRT, images(32))
    found = improve(state, setting, [step], samples(images(32)), True, silent)  # type: ignore[list-item]
    (decision,) = found.decisions.steps
    assert decision.kept
    assert decision.sqnr_db_after is not None
    assert decision.sqnr_db_after > decision.sqnr_db_before + 6
    assert found.state.divided["relu"][1:4].min() >= 4 * np.median(found.state.divided["relu"])


def test_outliers_behind_a_layer_norm_go_into_the_weights() -> None:
    setting, state = started(normed(), TENSORRT, tokens())
    found = smooth(state, setting, silent)
    assert found is not None
    assert found.divided["n"][2] > 8 * np.median(found.divided["n"])
    judge = Judge(state.model, samples(tokens(40)[32:], name="tokens"), exact=True)
    before, after = (judge.score(setting.write(one)).sqnr_db for one in (state, found))
    assert after > before + 10
    assert equalise(state, setting, silent) is None  # no layer before it whose weights could be equal


def test_what_would_compute_something_else_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, state = started(uneven(), CPU, images(16))

    def wrong(model: ModelProto, by: object) -> ModelProto:
        changed = load(model)
        bias = Index(changed).initializers["b.bias"]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), "b.bias"))
        return changed

    monkeypatch.setattr(equalisation, "divided", wrong)
    assert equalise(state, setting, silent) is None


def test_a_network_without_a_seam_has_nothing_to_equalise() -> None:
    net = Net()
    setting, state = started(net.head(net.conv("a", net.planes(), 1, 8), 8), TENSORRT, images(16))
    assert equalise(state, setting, silent) is None
    assert smooth(state, setting, silent) is None


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_the_plan_says_what_its_numbers_hold_for(style: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(to_bytes(uneven()))

    def quantized(name: str, **rest: object) -> object:
        request = QuantizationRequest(style, **rest)  # type: ignore[arg-type]
        return quantize_model(tmp_path / "net.onnx", tmp_path / name, images(32), request)

    first = quantized("a.onnx", effort="best")
    assert first.plan.divided  # type: ignore[attr-defined]
    (tmp_path / "plan.json").write_bytes(plan_bytes(first.plan))  # type: ignore[attr-defined]
    given = read_plan(tmp_path / "plan.json")
    assert given == first.plan  # type: ignore[attr-defined]
    again = quantized("b.onnx", effort="best", given=given)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert plan_bytes(again.plan) == plan_bytes(given)  # type: ignore[attr-defined]
    fast = quantized("c.onnx", given=given)  # the scales hold without the rest of what was tried
    plain = quantized("d.onnx")
    judge = Judge(uneven(), samples(images(16, seed=5)), exact=True)
    scores = [judge.score(load(tmp_path / name)).sqnr_db for name in ("c.onnx", "d.onnx")]
    assert scores[0] > scores[1] + 3
    assert fast.plan.divided == given.divided  # type: ignore[attr-defined]
    assert not plain.plan.divided  # type: ignore[attr-defined]


def test_residual_sums_are_no_seam() -> None:
    setting, state = started(residual_net(), CPU, images(16))
    found = equalise(state, setting, silent)
    assert found is not None
    assert set(found.divided) == {"relu2"}


@pytest.mark.parametrize(
    ("name", "by", "message"),
    [
        ("relu", (1.0,), r"quantize\.plan: divided\['relu'\]: the graph computes no such; the nearest: relu"),
        (
            "relu3",
            (1.0,) * 8,
            r"quantize\.plan: divided\['relu3'\]: no layer's channels alone make and read it; the nearest: relu2",
        ),
        (
            "relu2",
            (1.0, 2.0),
            r"quantize\.plan: divided\['relu2'\]\.by: 2 numbers from 1.0 to 2.0; rule: one for each of its 8 channels",
        ),
        ("relu2", (0.0,) * 8, r"8 numbers from 0.0 to 0.0; rule: .* finite and above 0"),
        ("relu2", (), r"quantize\.plan: divided\['relu2'\]\.by: 0 numbers"),
    ],
)
def test_what_cannot_be_divided_is_refused(name: str, by: tuple[float, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(to_bytes(residual_net()))
    given = QuantizationPlan(schema=1, divided={name: Divided(by=by)})
    with pytest.raises(ConfigError, match=message):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", images(4), QuantizationRequest("cpu", given=given))
