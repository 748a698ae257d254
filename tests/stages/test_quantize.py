"""Which precision plan each target gets, and what is refused; what the graph then holds is tested in tests/graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.quantize import NothingToQuantize, QuantizationReport
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.stage import Job, Step
from dlx_deploy.stages.quantize import STAGE
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions, read_precisions
from dlx_deploy.stages.support.requested import QuantizeParams
from dlx_deploy.targets import load_target

from ..datasets import held_images, held_texts
from ..onnx_fixtures import Net, images, residual_net
from .support.planning import planned, rehearsed


def reported(layers: dict[str, str]) -> QuantizationReport:
    return QuantizationReport(layers, 0, Ranges(), QuantizationPlan(schema=1))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plan that a target gets at an opset, and the arguments that the conversion was called with."""
    seen: dict[str, Any] = {}

    def convert(source: Path, out: Path, images: Any, plan: Any, *told: Any) -> Any:
        seen.update(int8=plan.int8, half=plan.half, block_size=plan.block_size, fp8=plan.fp8)
        out.write_bytes(source.read_bytes())
        return reported({"a/Conv": "int8" if plan.int8 else "fp16"})

    monkeypatch.setattr("dlx_deploy.graph.quantization.quantize.quantize_model", convert)
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data",
        lambda path: held_images(np.zeros((4, 8, 8, 1), np.uint8), only="calibration"),
    )

    def run(target: str, opset: int = 20, **params: Any) -> tuple[LayerPrecisions, dict[str, Any]]:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
        source = tmp_path / "m.onnx"
        source.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        seen.clear()
        inputs = {"onnx": source, "data": tmp_path}
        STAGE.run(Job(QuantizeParams(**params), inputs, out, load_target(target).profile))
        assert sorted(p.name for p in out.iterdir()) == sorted(STAGE.outputs)
        return read_precisions(out / "layers.json"), dict(seen)

    return run


@pytest.mark.parametrize(
    ("target", "opset", "params", "precision", "elsewhere", "typed"),
    [
        ("jetson", 20, {}, "int8", "fp16", True),
        ("jetson", 20, {"elsewhere": "fp32"}, "int8", "fp32", True),
        ("jetson", 20, {"precision": "fp16"}, "fp16", "fp16", True),
        ("jetson", 20, {"precision": "int4"}, "int4", "fp16", True),
        ("rpi5", 20, {"precision": "int4"}, "int4", "fp32", True),
        ("rtx-4090", 20, {"precision": "fp8"}, "fp8", "fp16", True),
        ("jetson", 20, {"precision": "bf16"}, "bf16", "fp32", True),
        ("jetson", 20, {"precision": "fp32"}, "fp32", "fp32", True),
        ("jetson-xavier-nx", 16, {}, "int8", "fp16", False),  # no FP16 Q/DQ at opset 16: the builder is told
        ("jetson-xavier-nx", 16, {"precision": "fp16"}, "fp16", "fp16", True),
        ("rtx", 20, {}, "int8", "fp16", True),
        ("jetson-nano", 13, {}, "fp32", "fp32", True),  # its TensorRT runs no package
        ("cpu-x86_64", 20, {}, "int8", "fp32", True),
        ("rpi4", 20, {"precision": "fp32"}, "fp32", "fp32", True),
    ],
)
def test_the_plan(
    plan: Any, target: str, opset: int, params: dict[str, str], precision: str, elsewhere: str, typed: bool
) -> None:
    chosen, asked = plan(target, opset, **params)
    if precision != "fp32":
        blocks = 32 if precision == "int4" else 0
        below = {"block_size": blocks, "fp8": precision == "fp8"}
        assert asked == {"int8": precision == "int8", "half": elsewhere == "fp16" and typed, **below}
    assert (chosen.precision, chosen.elsewhere) == (precision, elsewhere if precision != "fp32" else "fp32")
    assert chosen.strongly_typed is typed


def test_what_was_tried_is_an_output_and_what_it_gave_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(images(32), only="calibration")
    )
    (tmp_path / "m.onnx").write_bytes(residual_net().SerializeToString())
    inputs, decided = {"onnx": tmp_path / "m.onnx", "data": tmp_path}, {}
    for effort in ("fast", "balanced"):
        (tmp_path / effort).mkdir()
        params = QuantizeParams(effort=effort, calibration="percentile")
        metrics = STAGE.run(Job(params, inputs, tmp_path / effort, load_target("cpu-x86_64").profile))
        decided[effort] = json.loads((tmp_path / effort / "decisions.json").read_bytes())
        measured = {name for name in metrics if not name.endswith("_layers") and name != "size_bytes"}
        measured.remove("calibration_one_answer")
        if effort == "fast":
            assert not measured
            assert decided[effort] == {
                "schema": 1, "effort": "fast", "fitted": 0, "held": 0, "note": "", "steps": []
            }  # fmt: skip
            continue
        assert measured == {"held_out_sqnr_fast_db", "held_out_sqnr_db", "steps_kept", "effort_cpu_seconds"}
        steps = decided[effort]["steps"]
        assert metrics["steps_kept"] == sum(step["kept"] for step in steps)
        assert metrics["held_out_sqnr_fast_db"] == steps[0]["sqnr_db_before"]
        best = max(step["sqnr_db_after"] or -200 for step in steps if step["kept"])
        assert metrics["held_out_sqnr_db"] == best > metrics["held_out_sqnr_fast_db"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_int8_nothing_is_tried_and_that_is_said(plan: Any, precision: str, tmp_path: Path) -> None:
    plan("jetson", precision=precision, effort="best")
    (path,) = tmp_path.glob("*/decisions.json")
    decisions = json.loads(path.read_bytes())
    assert (decisions["effort"], decisions["note"]) == ("best", "nothing is INT8")


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a run of the stage tries for texts where ``works`` says which activations find a layer, and its plan."""

    def run(works: set[str], batch: int | str = "batch", **params: Any) -> tuple[list[str], LayerPrecisions]:
        tried: list[str] = []

        def convert(source: Path, out: Path, inputs: Any, plan: Any, *told: Any) -> Any:
            tried.append("dynamic" if plan.dynamic else "static" if plan.int8 else "fp16")
            if tried[-1] not in {*works, "fp16"}:
                raise NothingToQuantize(f"no layer for {tried[-1]}")
            out.write_bytes(source.read_bytes())
            return reported({"a/MatMul": "int8" if plan.int8 else "fp16"})

        monkeypatch.setattr("dlx_deploy.graph.quantization.quantize.quantize_model", convert)
        monkeypatch.setattr(
            "dlx_deploy.nn.data.dataset.open_data", lambda path: held_texts(np.ones((4, 3)), only="calibration")
        )
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
        (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        (tmp_path / "out").mkdir()
        target = load_target(params.pop("target", "cpu-x86_64")).profile
        inputs = {"onnx": tmp_path / "m.onnx", "data": tmp_path}
        if "plan" in params:
            inputs["plan"] = Path(params["plan"])
        STAGE.run(Job(QuantizeParams(**params), inputs, tmp_path / "out", target))
        return tried, read_precisions(tmp_path / "out" / "layers.json")

    return run


@pytest.mark.parametrize(
    ("works", "batch", "params", "tried", "precision"),
    [
        ({"dynamic", "static"}, "batch", {}, ["dynamic"], "int8"),
        ({"static"}, "batch", {}, ["dynamic", "static"], "int8"),  # a text network of convolutions
        (set(), "batch", {}, ["dynamic", "static"], "fp32"),  # nobody asked for INT8
        (set(), "batch", {"target": "jetson"}, ["static", "fp16"], "fp16"),
        ({"dynamic", "static"}, 1, {}, ["dynamic"], "int8"),
        ({"dynamic", "static"}, 8, {}, ["static"], "int8"),  # in a fixed batch, rows would depend on their neighbours
        ({"static"}, "batch", {"activations": "static"}, ["static"], "int8"),
        ({"dynamic", "static"}, "batch", {"weight_bits": 4}, ["static"], "int8"),  # ONNX Runtime's writes 8
    ],
)
def test_activations_of_texts(
    attempts: Any, works: set[str], batch: Any, params: Any, tried: list[str], precision: str
) -> None:
    methods, plan = attempts(works, batch, **params)
    assert methods == tried
    assert plan.precision == precision


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"precision": "int8"}, "no layer for static"),
        ({"activations": "dynamic"}, "no layer for dynamic"),
        ({"exclude": ("*",)}, "no layer for static"),
    ],
)
def test_int8_that_was_asked_for_and_cannot_be(attempts: Any, params: Any, message: str) -> None:
    with pytest.raises(NothingToQuantize, match=message):
        attempts(set(), **params)


@pytest.mark.parametrize(
    ("target", "params", "message"),
    [
        ("jetson-nano", {"precision": "int8"}, r"quantize\.precision is 'int8', .*it runs fp32; use 'auto'"),
        ("jetson-nano", {"precision": "fp16"}, r"quantize\.precision is 'fp16', which this target does not run"),
        ("cpu-x86_64", {"precision": "fp16"}, r"quantize\.precision is 'fp16', .*it runs fp32, int8"),
        ("cpu-x86_64", {"elsewhere": "fp16"}, r"quantize\.elsewhere is 'fp16', which this target does not run"),
    ],
)
def test_what_the_target_does_not_run(plan: Any, target: str, params: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(target, **params)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantize.activations=dynamic"], r"quantize\.activations is 'dynamic', and this target's tensorrt style"),
        (
            ["quantize.activation_bits=4", "quantize.precision=fp32"],
            r"quantize\.activation_bits is 4, and quantize\.precision 'fp32' writes no INT8 for this target; rule: it",
        ),
        (
            ["quantize.weight_bits=4", "quantize.precision=fp16"],
            r"quantize\.weight_bits is 4, and quantize\.precision 'fp16' writes no INT8 for this target; rule: it says",
        ),
        (
            ["quantize.precision=int4", "export.opset=17"],
            r"quantize\.precision is 'int4', and the graph's opset 17; rule: 20 or newer; set export\.opset",
        ),
        (
            ["quantize.precision=int4", "quantize.activations=static"],
            r"'int4' and quantize\.activations 'static'; rule: weights alone are INT4",
        ),
        (["quantize.block_size=64"], r"block_size is 64 and precision 'auto'; rule: with 'int4'"),
        (["quantize.exclude=['']"], r"quantize\.exclude has ''; rule: patterns of layer names"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        (["quantize.precision=int8"], "jetson-nano", r"quantize\.precision is 'int8', which this target does not run"),
        (
            ["quantize.precision=fp8"],
            "jetson-orin-nx-16gb",
            r"'fp8', which this target does not run \(FP8 came with compute capability 8\.9: Orin.*; it runs fp32",
        ),
        (
            ["quantize.precision=bf16"],
            "cpu-x86_64",
            r"'bf16', .*ONNX Runtime has no kernels for it on CPUs\); it runs fp",
        ),
        (["quantize.precision=fp8"], "cpu-x86_64", r"'fp8', which this target does not run \(FP8 came with"),
        (
            ["quantize.precision=fp8", "quantize.calibration=mse"],
            "l4",
            r"'fp8' and quantize\.calibration 'mse', which seeks ranges for even steps; rule: 'minmax' or 'percentile'",
        ),
        (["quantize.precision=fp8", "export.opset=18"], "l4", r"'fp8', and the graph's opset 18; rule: 19 or newer"),
        (["quantize.precision=int4"], "t4", r"quantize\.precision is 'int4', which this target does not run"),
        (["quantize.precision=fp16"], "rpi5", r"quantize\.precision is 'fp16', which .*; it runs fp32, int8"),
        (["quantize.elsewhere=fp16"], "rpi5", r"quantize\.elsewhere is 'fp16', which this target does not run"),
        (
            ["quantize.activations=dynamic", "export.batch=4"],
            "rpi5",
            r"export\.batch is 4, and with dynamic activations an answer would depend on its neighbours",
        ),
        (
            ["quantize.activations=dynamic", "quantize.weight_bits=4"],
            "rpi5",
            r"quantize\.weight_bits is 4 and quantize\.activations 'dynamic', which goes with 8; set quantize\.act",
        ),
    ],
)
def test_what_a_plan_refuses_of_a_target(tmp_path: Path, overrides: list[str], target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides, target=target)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantize.exclude=['no*']"], r"quantize: quantize\.exclude: 'no\*' matches no node of the graph; its layers"),
    ],
)
def test_what_a_build_refuses_at_its_start(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, *overrides)


def step_of(build: Build) -> Step:
    return next(step for step in build.steps if step.stage is STAGE)


def test_a_plan_is_an_input_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text('[quantize]\nplan = "mine.json"\n')
    assert load_config(tmp_path / "deploy.toml").quantize.plan == str(tmp_path / "mine.json")
    (tmp_path / "mine.json").write_text('{"schema": 1}')
    step = step_of(planned(tmp_path, f"quantize.plan={tmp_path / 'mine.json'}"))
    assert step.inputs["plan"] == tmp_path / "mine.json"
    assert step.params == QuantizeParams(plan="plan.json", max_drop=0.02)
    assert "plan" not in step_of(planned(tmp_path)).inputs


BOTH = '{"schema": 1, "layers": {"a/Gemm": {"precision": "int4"}}}'
INT8 = "quantize.precision=int8"


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        ([INT8], "rpi5", ""),
        ([INT8], "jetson", ""),
        ([INT8, "quantize.effort=best", "qat.enabled=false"], "jetson", ""),
        ([], "jetson", r"'int4', and quantize\.precision 'auto' writes no INT4"),
        ([INT8], "t4", r"'int4', and quantize\.precision 'int8' writes no INT4 for this target"),
        (
            [INT8, "export.opset=17"],
            "jetson",
            r"'int4', and the graph's opset 17; rule: 20 or newer; set export\.opset",
        ),
        ([INT8, "quantize.effort=best"], "jetson", r"'int4' beside INT8, and qat would .*; set qat\.enabled = false"),
        ([INT8, "qat.enabled=true"], "jetson", r"'int4' beside INT8, and qat would train the network as INT8 alone"),
    ],
)
def test_int4_lines_beside_int8(tmp_path: Path, overrides: list[str], target: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(BOTH)
    given = f"quantize.plan={tmp_path / 'mine.json'}"
    if not message:
        assert "plan" in step_of(planned(tmp_path, given, *overrides, target=target)).inputs
        return
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, given, *overrides, target=target)


def test_int4_layers_beside_int8_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda _: held_images(images(16), only="calibration"))
    net = Net(20)
    source, plan, out = tmp_path / "m.onnx", tmp_path / "mine.json", tmp_path / "out"
    source.write_bytes(net.head(net.conv("a", net.planes(), 1, 32), 32).SerializeToString())
    plan.write_text(BOTH.replace("a/Gemm", "logits/Gemm"))
    out.mkdir()
    inputs = {"onnx": source, "data": tmp_path, "plan": plan}
    metrics = STAGE.run(
        Job(QuantizeParams(precision="int8", plan="plan.json"), inputs, out, load_target("rpi5").profile)
    )
    assert (metrics["int4_layers"], metrics["int8_layers"], metrics["fp32_layers"]) == (1, 1, 0)
    assert read_precisions(out / "layers.json").layers == {"a/Conv": "int8", "logits/Gemm": "int4"}


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        (None, [], r"mine\.json"),
        ("{", [], r"mine\.json: no quantization plan"),
        (
            '{"schema": 1, "layers": {"a/Conv": {}}}',
            ["quantize.precision=fp16"],
            r"mine\.json: layers\['a/Conv'\]\.precision is 'int8', and quantize\.precision 'fp16' writes no INT8",
        ),
    ],
)
def test_what_a_plan_that_was_given_is_refused_for(
    tmp_path: Path, content: str | None, overrides: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, f"quantize.plan={tmp_path / 'mine.json'}", *overrides)


def test_a_name_that_no_network_of_this_kind_has_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"schema": 1, "layers": {"stem.conv9/Conv": {"precision": "fp32"}}}')
    message = r"quantize\.plan: layers\['stem\.conv9/Conv'\]: the graph has no such layer; "
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, f"quantize.plan={tmp_path / 'mine.json'}")


@pytest.mark.parametrize(("target", "scheme"), [("jetson", "tensorrt"), ("cpu-x86_64", "cpu"), ("jetson-nano", None)])
def test_ranges_and_plan_are_written_and_a_plan_is_given_back(
    target: str, scheme: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(images(20)))
    (tmp_path / "m.onnx").write_bytes(residual_net(opset=20).SerializeToString())
    inputs = {"onnx": tmp_path / "m.onnx", "data": tmp_path}

    def outputs(name: str, **more: Path) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        STAGE.run(Job(QuantizeParams(), {**inputs, **more}, tmp_path / name, load_target(target).profile))
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}

    first = outputs("first")
    plan = msgspec.json.decode(first["plan.json"])
    assert plan.get("scheme") == scheme
    assert set(plan["layers"]) == {"conv1/Conv", "conv2/Conv", "conv3/Conv", "logits/Gemm"}
    assert set(msgspec.json.decode(first["ranges.json"])["tensors"]) <= set(plan["tensors"])
    second = outputs("second", plan=tmp_path / "first" / "plan.json")
    assert {name: second[name] for name in ("model.onnx", "plan.json", "layers.json")} == {
        name: first[name] for name in ("model.onnx", "plan.json", "layers.json")
    }
    plan["layers"]["conv2/Conv"] = {"precision": "fp32"}
    (tmp_path / "edited.json").write_bytes(msgspec.json.encode(plan))
    edited = layers_of(outputs("third", plan=tmp_path / "edited.json"))
    assert edited["conv2/Conv"] == "fp32"
    assert {name for name, kind in edited.items() if kind == "int8"} == (
        {"conv1/Conv", "conv3/Conv", "logits/Gemm"} if scheme else set()
    )


def layers_of(files: dict[str, bytes]) -> dict[str, str]:
    return dict(msgspec.json.decode(files["layers.json"])["layers"])


@pytest.mark.parametrize(
    ("content", "tried"),
    [
        ('"scheme": "cpu"', ["static"]),
        ('"scheme": "cpu-dynamic"', ["dynamic"]),
        ('"tensors": {"x": {"source": "entropy"}}', ["static"]),
        ('"layers": {}', ["dynamic"]),
    ],
)
def test_what_a_plan_holds_decides_how_texts_are_quantized(
    attempts: Any, content: str, tried: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text(f'{{"schema": 1, {content}}}')
    methods, _ = attempts({"dynamic", "static"}, plan=str(tmp_path / "mine.json"))
    assert methods == tried
