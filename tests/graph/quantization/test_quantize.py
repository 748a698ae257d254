from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import Index, infer, load
from dlx_deploy.graph.quantization import quantize
from dlx_deploy.graph.quantization.kit import state
from dlx_deploy.graph.quantization.quantize import NothingToQuantize, QuantizationRequest
from dlx_deploy.graph.quantization.rules import TENSORRT_RULES, check_tensorrt_rules

from ...arrays import quantize_model, run_onnx, top1
from ...onnx_fixtures import Net, digits, exported, images, residual_net, token_net

PLANS = [
    QuantizationRequest("tensorrt"),
    QuantizationRequest("tensorrt", method="percentile"),
    QuantizationRequest("tensorrt", method="entropy"),
    QuantizationRequest("cpu"),
    QuantizationRequest("cpu", reduce_range=True),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "digits.onnx"
    path.write_bytes(exported())
    return path


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{p.style}-{p.method}-{p.reduce_range}")
def test_a_trained_network_keeps_its_accuracy(plan: QuantizationRequest, source: Path, tmp_path: Path) -> None:
    train, _, test, labels = digits()
    report = quantize_model(source, tmp_path / "int8.onnx", train[:128], plan)
    before = run_onnx(source, test, exact_qdq=False)
    after = run_onnx(tmp_path / "int8.onnx", test, exact_qdq=plan.style == "tensorrt")
    assert top1(before, labels) > 0.9
    assert top1(before, labels) - top1(after, labels) < 0.01
    assert np.abs(before - after).max() > 0  # something did change
    assert set(report.layers.values()) == {"int8"}
    assert report.int8_share == 1.0
    assert "4.short.0/Conv" in report.layers
    assert report.activations == {"tensorrt": 7, "cpu": 11}[plan.style]


def test_the_weights_take_a_quarter(source: Path, tmp_path: Path) -> None:
    for style in ("tensorrt", "cpu"):
        quantize_model(source, tmp_path / f"{style}.onnx", digits()[0][:32], QuantizationRequest(style))
        weights = {}
        for path in (source, tmp_path / f"{style}.onnx"):
            weights[path] = sum(len(t.raw_data) for t in load(path).graph.initializer)
        assert 0.25 <= weights[tmp_path / f"{style}.onnx"] / weights[source] < 0.30


def test_a_tensorrt_graph_obeys_the_rules_and_a_cpu_graph_does_not(source: Path, tmp_path: Path) -> None:
    for style in ("tensorrt", "cpu"):
        quantize_model(source, tmp_path / f"{style}.onnx", digits()[0][:32], QuantizationRequest(style))
    assert check_tensorrt_rules(load(tmp_path / "tensorrt.onnx")) == []
    broken = {text.split(":")[0] for text in check_tensorrt_rules(load(tmp_path / "cpu.onnx"))}
    assert {"zero-point", "int8-only", "bias"} <= broken


def test_the_same_plan_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for plan in (PLANS[0], PLANS[3]):
        for name in ("a", "b"):
            quantize_model(source, tmp_path / name, digits()[0][:40], plan)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_excluded_layers_are_reported(style: str, source: Path, tmp_path: Path) -> None:
    plan = QuantizationRequest(style, exclude=("0/Conv", "7/*"))
    report = quantize_model(source, tmp_path / "int8.onnx", digits()[0][:32], plan)
    assert {name for name, precision in report.layers.items() if precision == "fp32"} == {"0/Conv", "7/Gemm"}
    assert report.int8_share == 5 / 7


def test_nothing_left_to_quantize(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"no layer is left to quantize .*set quantize\.precision = 'fp32'"):
        quantize_model(source, tmp_path / "int8.onnx", images(4), QuantizationRequest("tensorrt", exclude=("*",)))
    with pytest.raises(ConfigError, match="matches no node of the graph"):
        quantize_model(source, tmp_path / "int8.onnx", images(4), QuantizationRequest("cpu", exclude=("layer9*",)))


@pytest.mark.parametrize("exclude", [(), ("*",)])
def test_dynamic_activations_without_a_matmul_are_no_int8(
    exclude: tuple[str, ...], source: Path, tmp_path: Path
) -> None:
    plan = QuantizationRequest("cpu", dynamic=True, exclude=exclude)
    remedy = r"set quantize\.precision = 'fp32'" if exclude else r"set quantize\.activations = 'static'"
    with pytest.raises(
        NothingToQuantize, match=rf"no layer is left to .* 6 Conv, 1 Gemm\); rule: with dyn.*; {remedy}"
    ):
        quantize_model(source, tmp_path / "int8.onnx", images(4), plan)
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_a_plan_that_says_int8_is_checked_against_the_graph(
    style: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "write_qdq", lambda model, *_: model)  # a writer that writes nothing
    with pytest.raises(NothingToQuantize, match="no layer is left to quantize"):
        quantize_model(source, tmp_path / "int8.onnx", images(4), QuantizationRequest(style))


def shared_net() -> onnx.ModelProto:
    """A stem, and a convolution that is used twice, as the exporter names such uses."""
    net = Net()
    x = net.conv("stem", net.planes(), 1, 8)
    net.conv("cls", x, 8, 8)
    net.add("cls_2", "Conv", net.add("relu", "Relu", "cls"), "cls.weight", "cls.bias", pads=[1] * 4)
    net.nodes[-1].name = "cls/Conv_2"
    return net.head("cls_2", 8)


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
@pytest.mark.parametrize("pattern", ["cls/Conv", "cls", "cls/Conv_2", "c*/Conv"])
def test_a_pattern_excludes_a_module_in_all_its_uses(pattern: str, style: str, tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(shared_net().SerializeToString())
    report = quantize_model(source, tmp_path / "q.onnx", images(4), QuantizationRequest(style, exclude=(pattern,)))
    assert report.layers == {"stem/Conv": "int8", "cls/Conv": "fp32", "cls/Conv_2": "fp32", "logits/Gemm": "int8"}


def test_a_pattern_excludes_what_is_inside_a_module_and_no_neighbour(source: Path, tmp_path: Path) -> None:
    plan = QuantizationRequest("tensorrt", exclude=("4",))
    report = quantize_model(source, tmp_path / "int8.onnx", digits()[0][:8], plan)
    inside = {name for name in report.layers if name.startswith("4.")}
    assert len(inside) == 3
    assert {name for name, precision in report.layers.items() if precision == "fp32"} == inside


def test_a_pattern_that_matches_nothing_names_what_is_near(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(shared_net().SerializeToString())
    with pytest.raises(ConfigError, match=r"'clas/Conv' matches no node of the graph; the nearest: cls/Conv, "):
        quantize_model(source, tmp_path / "q.onnx", images(4), QuantizationRequest("cpu", exclude=("clas/Conv",)))
    with pytest.raises(ConfigError, match=r"'zzz' matches no node of the graph; its layers: stem/Conv, cls/Conv, "):
        quantize_model(source, tmp_path / "q.onnx", images(4), QuantizationRequest("cpu", exclude=("zzz",)))


def test_a_graph_of_ours_that_breaks_a_rule_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(residual_net().SerializeToString())
    broken = replace(TENSORRT_RULES, ensures=lambda model: ["scale: node 'x': it is 0"])
    monkeypatch.setattr(quantize, "TENSORRT_RULES", broken)
    rule = r"net\.onnx: the graph breaks what the pass 'tensorrt-rules' ensures: scale: node 'x': it is 0"
    with pytest.raises(StageFailed, match=rf"{rule} \(in the pass 'tensorrt-rules', after int8, tidy, fence\)"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "int8.onnx", images(8), QuantizationRequest("tensorrt"))
    assert not (tmp_path / "int8.onnx").exists()


def test_where_no_matmul_could_be_int8_the_batch_size_is_not_to_blame(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(residual_net(batch=4).SerializeToString())
    with pytest.raises(NothingToQuantize, match=r"set quantize\.activations = 'static'$"):
        quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", images(4), QuantizationRequest("cpu", dynamic=True))


@pytest.mark.parametrize(
    "plan",
    [
        QuantizationRequest("tensorrt"),
        QuantizationRequest("cpu"),
        QuantizationRequest("tensorrt", int8=False, half=True),
    ],
    ids=["tensorrt", "cpu", "half"],
)
def test_texts_are_looked_at_without_their_padding(plan: QuantizationRequest, tmp_path: Path) -> None:
    """The table's row for padding is far larger than the others: it would take most of the range."""
    model = token_net()
    table = Index(model).array("table") * np.float32(100)
    Index(model).initializers["table"].CopyFrom(numpy_helper.from_array(table, "table"))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    texts = np.array([[1, 1, 2, 2], [2, 3, 1, 0]], np.int32)
    padded = np.pad(texts, ((0, 0), (0, 2)), constant_values=8)
    for name, tokens in (("texts", texts), ("padded", padded)):
        quantize_model(tmp_path / "net.onnx", tmp_path / name, tokens, plan, pad_id=8)
    assert (tmp_path / "padded").read_bytes() == (tmp_path / "texts").read_bytes()


@pytest.mark.parametrize("int8", [False, True])
def test_a_tensor_that_one_image_drives_out_of_half_precision_stays_in_float32(int8: bool, tmp_path: Path) -> None:
    net = Net(opset=20)
    net.constant("much", np.array(-1e5, np.float32))
    large = net.add("large", "Mul", net.conv("a", net.planes(), 1, 8), "much")
    net.constant("little", np.array(1e-3, np.float32))
    (tmp_path / "net.onnx").write_bytes(net.head(net.add("small", "Mul", large, "little"), 8).SerializeToString())
    pictures = np.full((40, 8, 8, 1), 128, np.uint8)  # nothing but zeros for the network
    pictures[39] = images(1)
    plan = QuantizationRequest("tensorrt", int8=int8, half=True)
    quantize_model(tmp_path / "net.onnx", tmp_path / "half.onnx", pictures, plan)
    kinds = {name: info.dtype for name, info in infer(load(tmp_path / "half.onnx")).items()}
    assert (kinds["large"], kinds["pooled"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    exact = run_onnx(tmp_path / "net.onnx", pictures, exact_qdq=True)
    assert run_onnx(tmp_path / "half.onnx", pictures, exact_qdq=True) == pytest.approx(exact, rel=0.05, abs=0.05)


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_a_shape_that_the_graph_computes_is_not_calibrated(style: str, tmp_path: Path) -> None:
    """A reshape behind a layer stays in INT8, and reads integers beside it."""
    net = Net(opset=20)
    x = net.conv("a", net.planes(), 1, 8)
    net.constant("first", np.array([0]))
    net.constant("rest", np.array([-1]))
    net.add("batch", "Gather", net.add("shape", "Shape", x), "first", axis=0)
    net.add("wanted", "Concat", "batch", "rest", axis=0)
    x = net.add("rows", "Reshape", x, "wanted")
    net.weight("fc.weight", 10, 512)
    net.add("logits", "Gemm", x, "fc.weight", transB=1)
    (tmp_path / "net.onnx").write_bytes(net.model().SerializeToString())
    report = quantize_model(tmp_path / "net.onnx", tmp_path / "q.onnx", images(8), QuantizationRequest(style))
    assert report.layers == {"a/Conv": "int8", "logits/Gemm": "int8"}
    assert set(report.ranges.tensors) == {"tensorrt": {"x", "rows"}, "cpu": {"x", "a"}}[style]
    exact, rounded = (run_onnx(tmp_path / name, images(8), exact_qdq=True) for name in ("net.onnx", "q.onnx"))
    assert np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
