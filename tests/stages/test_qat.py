from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from onnx import numpy_helper

from dlx_deploy.config import Config, Data, Qat, load_config
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import Index, input_dims, load, to_bytes
from dlx_deploy.graph.quantization.plan import plan_bytes, read_plan
from dlx_deploy.graph.quantization.trials import Trial, Trials, written
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.outputs import Outputs
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.qat import graph_network
from dlx_deploy.nn.qat.graph_network import GraphNetwork
from dlx_deploy.nn.training.loop import _Run  # here, so that it has its own evaluate when a test replaces that
from dlx_deploy.nn.weights.network import Architecture, save_model
from dlx_deploy.pipeline.stage import CURVES, Job, Output, Step
from dlx_deploy.stages import quantize
from dlx_deploy.stages.convert import used_as_it_is
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.qat import STAGE, notes
from dlx_deploy.stages.support.missed import read_trained
from dlx_deploy.stages.support.requested import QuantizeParams
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare
from dlx_deploy.tasks.images import image_header

from ..onnx_fixtures import residual_net
from .support.planning import planned, rehearsed

TARGETS = ["jetson", "cpu-x86_64"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Digits, a network that knows nothing, as its own teacher and as ONNX, and how it is quantized for each target."""
    root = tmp_path_factory.mktemp("qat")
    prepare(Data(kind="digits", limit_train=96, limit_test=32, calibration_images=32), root / "data", 0)
    header = image_header(open_data(root / "data"))
    torch.manual_seed(0)
    model = build_model("resnet8", {"width": 0.5}, 10, ImageInput(1, 8, 8)).eval()
    architecture = Architecture(model="resnet8", arguments={"width": 0.5}, classes=10, input=ImageInput(1, 8, 8))
    save_model(root / "model", model, architecture)
    for name, batch in (("model.onnx", "dynamic"), ("fours.onnx", 4)):
        outputs: Outputs = {"logits": (10,)}
        export_onnx(model, root / name, ExportSpec(8, 8, 1, header.mean, header.std, outputs, batch=batch))
    inputs = {"data": root / "data", "onnx": root / "model.onnx"}
    for target in TARGETS:
        (root / target).mkdir()
        job = Job(QuantizeParams(activations="static"), inputs, root / target, load_target(target).profile)
        quantize.STAGE.run(job)
    return {**inputs, "teacher": root / "model", "root": root}


def run(made: dict[str, Path], out: Path, target: str, **params: Any) -> tuple[dict[str, float], Path]:
    inputs = {name: made[name] for name in ("data", "onnx", "teacher", "trials") if name in made}
    inputs |= {"ptq": made["root"] / target / "plan.json", "layers": made["root"] / target / "layers.json"}
    result = out / "out"
    result.mkdir(parents=True)
    section = Qat(**{"enabled": True, "epochs": 2, "batch_size": 16, "warmup_fraction": 0.0, **params})
    job = Job(section, inputs, result, load_target(target).profile, threads=1, checkpoints=out / "kept")
    return STAGE.run(job), result


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_learned_is_quantized_as_it_was_trained(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr("dlx_deploy.nn.training.inference.evaluate", lambda *_: 0.0)  # no score is lower
    metrics, out = run(made, tmp_path, target)
    assert metrics["kept"] == 1
    assert sorted(path.name for path in out.iterdir()) == sorted([CURVES, *STAGE.outputs])
    assert metrics["written_sqnr_db"] > 40
    assert metrics["epochs"] == 2
    assert {"validation_top1", "validation_top1_ptq"} <= metrics.keys()
    plan = read_plan(out / "plan.json")
    assert {layer.source for layer in plan.layers.values()} == {"lsq"}
    (tmp_path / "int8").mkdir()
    inputs = {"data": made["data"], "onnx": out / "model.onnx", "plan": out / "plan.json"}
    params = QuantizeParams(activations="static", plan="plan.json")
    counted = quantize.STAGE.run(Job(params, inputs, tmp_path / "int8", load_target(target).profile))
    assert counted["int8_layers"] == len(plan.layers)
    assert read_plan(tmp_path / "int8/plan.json") == plan
    assert json.loads((tmp_path / "int8/ranges.json").read_bytes())["tensors"] == {}  # nothing is measured again


def test_a_run_that_was_cut_short_ends_in_the_same_bytes(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = run(made, tmp_path / "whole", "cpu-x86_64")

    class Killed(BaseException):
        """What no handler takes for a failure."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        begun = _Run._epoch
        patch.setattr(_Run, "_epoch", lambda self, epoch: begun(self, epoch) if not epoch else die())
        with pytest.raises(Killed):
            run(made, tmp_path / "cut", "cpu-x86_64")
    (tmp_path / "cut/out").rmdir()
    assert sorted(path.name for path in (tmp_path / "cut/kept").iterdir())
    metrics, resumed = run(made, tmp_path / "cut", "cpu-x86_64")
    assert metrics["epochs"] == 2
    for name in STAGE.outputs:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_nothing_is_kept_of_a_training_that_made_it_worse(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.nn.training.inference.evaluate", lambda *_: 1.0)
    metrics, out = run(made, tmp_path, "jetson", epochs=1, alpha=0.0)
    assert (metrics["kept"], metrics["validation_top1_ptq"]) == (0, 1)
    assert read_plan(out / "plan.json") == read_plan(made["root"] / "jetson/plan.json")
    assert load(out / "model.onnx") == load(made["onnx"])
    assert not read_trained(out / "trained.json").kept
    (said,) = notes(Config(), {}, metrics)
    assert "was 1.0000 before, so the network stays as it was quantized without training; lower" in said


def test_without_epochs_the_plan_stays_as_it_is(made: dict[str, Path], tmp_path: Path) -> None:
    metrics, out = run(made, tmp_path, "jetson", epochs=0)
    before, after = read_plan(made["root"] / "jetson/plan.json"), read_plan(out / "plan.json")
    assert [t.scale for t in after.tensors.values()] == [t.scale for t in before.tensors.values()]
    assert [layer.scales for layer in after.layers.values()] == [layer.scales for layer in before.layers.values()]
    assert load(out / "model.onnx") == load(made["onnx"])
    assert metrics["validation_top1"] == metrics["validation_top1_ptq"]


def test_a_finished_graph_of_one_batch_size_is_its_own_teacher(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.nn.training.inference.evaluate", lambda *_: 0.0)
    graph = {**made, "onnx": made["root"] / "fours.onnx", "root": tmp_path}
    del graph["teacher"]
    (tmp_path / "cpu-x86_64").mkdir()
    job = Job(QuantizeParams(activations="static"), graph, tmp_path / "cpu-x86_64", load_target("cpu-x86_64").profile)
    quantize.STAGE.run(job)
    asked: list[torch.Tensor] = []
    forward = GraphNetwork.forward
    monkeypatch.setattr(GraphNetwork, "forward", lambda self, x: _seen(asked, self, forward(self, x)))
    metrics, out = run(graph, tmp_path / "run", "cpu-x86_64", epochs=1, alpha=1.0)
    assert (metrics["kept"], metrics["epochs"]) == (1, 1)
    assert metrics["written_sqnr_db"] > 40
    assert input_dims(load(out / "model.onnx")) == {"images": (4, 8, 8, 1)}
    learned, before = Index(load(out / "model.onnx")), Index(load(graph["onnx"]))
    weights = next(name for name, tensor in before.initializers.items() if len(tensor.dims) == 4)
    assert (learned.array(weights) != before.array(weights)).any()
    assert any(len(answers) % 4 for answers in asked)  # of the float graph, in batches that it was not made for


def _seen(asked: list[torch.Tensor], network: GraphNetwork, answer: torch.Tensor) -> torch.Tensor:
    if not network.quantizers and not network.training:
        asked.append(answer)
    return answer


def test_a_network_with_another_preprocessing_than_training_has_is_refused(
    made: dict[str, Path], tmp_path: Path
) -> None:
    model = load(made["onnx"])
    scale = next(node for node in model.graph.node if node.name == "preprocess/Mul").input[1]
    tensor = Index(model).initializers[scale]
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), scale))
    (tmp_path / "other.onnx").write_bytes(to_bytes(model))
    with pytest.raises(StageFailed, match=r"reads \[10, 1, 8, 8\], and training .* apart\); rule: a graph normalises"):
        run({**made, "onnx": tmp_path / "other.onnx"}, tmp_path / "run", "jetson")


MET = Trials(trials=(Trial(int8_layers=8, int8_macs=1.0, score=1.0, drop=None, drop_upper=None, verdict="met"),))
MISSED = Trials(trials=(replace(MET.trials[0], score=0.5, verdict="missed"),))


@pytest.mark.parametrize(
    ("trials", "scheme", "reason"),
    [
        (MET, "tensorrt", "INT8 keeps to its budget on the validation split without training"),
        (Trials(note="no layer can be INT8"), "tensorrt", "no layer can be INT8"),
        (MISSED, "cpu-dynamic", "activations have no scales that could learn, as quantize.activations 'auto'"),
        (MISSED, "tensorrt", "qat: node 'model/Relu' (Relu): its operator is not among what learns in torch here"),
    ],
)
def test_where_nobody_said_that_it_must_be_trained_the_network_is_passed_on(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Trials, scheme: str, reason: str
) -> None:
    few = {name: run for name, run in graph_network.OPERATORS.items() if name != "Relu"}
    monkeypatch.setattr(graph_network, "OPERATORS", few)
    root = tmp_path / "ptq"
    (root / "jetson").mkdir(parents=True)
    for name in ("plan.json", "layers.json"):
        shutil.copyfile(made["root"] / "jetson" / name, root / "jetson" / name)
    (root / "jetson/plan.json").write_bytes(
        plan_bytes(replace(read_plan(made["root"] / "jetson/plan.json"), scheme=scheme))
    )
    (root / "trials.json").write_bytes(written(trials))
    metrics, out = run({**made, "root": root, "trials": root / "trials.json"}, tmp_path, "jetson", enabled="auto")
    assert metrics == {"trained": 0, "kept": 0}
    assert sorted(path.name for path in out.iterdir()) == sorted(STAGE.outputs)
    assert (out / "model.onnx").read_bytes() == made["onnx"].read_bytes()
    assert (out / "plan.json").read_bytes() == (root / "jetson/plan.json").read_bytes()
    (said,) = notes(Config(), {"trained.json": out / "trained.json"}, metrics)
    assert said.startswith(f"nothing was trained: {reason}")


def test_a_plan_without_int8_has_nothing_to_learn(made: dict[str, Path], tmp_path: Path) -> None:
    floating = {**made, "root": tmp_path}
    (tmp_path / "jetson").mkdir()
    job = Job(QuantizeParams(precision="fp32"), made, tmp_path / "jetson", load_target("jetson").profile)
    quantize.STAGE.run(job)
    with pytest.raises(ConfigError, match=r"qat\.enabled is true, and quantize wrote fp32 with no layer on int8"):
        run(floating, tmp_path / "run", "jetson")


def steps_of(*overrides: str, target: str = "jetson") -> dict[str, Step]:
    return {step.name: step for step in steps_for(load_config(None, overrides), load_target(target).profile)}


def test_the_steps_around_it() -> None:
    without, trained = steps_of(), steps_of("qat.enabled=true", "quantize.effort='best'", "quantize.plan='mine.json'")
    assert not {"qat", "quantize-ptq"} & without.keys()
    assert without["quantize"].params == QuantizeParams(max_drop=0.02)
    names = list(trained)
    assert names[names.index("quantize-ptq") :][:4] == ["quantize-ptq", "qat", "quantize", "compile"]
    ptq, qat, written = trained["quantize-ptq"], trained["qat"], trained["quantize"]
    assert ptq.params == QuantizeParams(activations="static", plan="plan.json", max_drop="off")  # all layers learn
    assert ptq.inputs["plan"] == Path("mine.json")  # the user's own plan is where scales begin
    assert qat.inputs["onnx"] == ptq.inputs["onnx"] == Output("export-pruned", "model.onnx")
    assert {name: qat.inputs[name] for name in ("ptq", "layers")} == {
        "ptq": Output("quantize-ptq", "plan.json"),
        "layers": Output("quantize-ptq", "layers.json"),
    }
    assert qat.inputs["teacher"] == Output("teacher", "model")  # epochs are fewer than the views of an image
    assert written.inputs == {
        "onnx": Output("qat", "model.onnx"),
        "data": Output("data", "data"),
        "plan": Output("qat", "plan.json"),
        "reference": Output("export-teacher", "model.onnx"),
        "float": Output("export-pruned", "model.onnx"),
    }
    assert written.params == QuantizeParams(activations="static", max_drop=0.02)  # no step is tried
    assert trained["compile"].inputs["quantized"] == Output("quantize", "model.onnx")
    assert trained["compile"].inputs["onnx"] == Output("export-pruned", "model.onnx")
    alone = steps_of("qat.enabled=true", "qat.epochs=9", "distill.enabled=false", "prune.enabled=false")
    assert alone["qat"].inputs["logits"] == Output("teacher-logits", "logits.npy")
    assert alone["quantize"].inputs["float"] == Output("export-teacher", "model.onnx")  # what was trained is another


BEST = ("quantize.effort='best'",)


def test_the_steps_where_int8_is_trained_only_if_it_misses_its_budget() -> None:
    steps = steps_of(*BEST, "qat.epochs=9", "quantize.plan='mine.json'", "distill.enabled=false", "prune.enabled=false")
    names = list(steps)
    assert names[names.index("quantize-ptq") :][:4] == ["quantize-ptq", "qat", "quantize", "compile"]
    assert not any("logits" in name for name in names)  # nobody may ask
    asked = QuantizeParams(effort="best", plan="plan.json", max_drop=0.02)
    assert steps["quantize-ptq"].params == replace(asked, missed="train")
    assert steps["quantize"].params == asked
    assert steps["qat"].inputs["trials"] == Output("quantize-ptq", "trials.json")
    assert steps["qat"].inputs["teacher"] == Output("teacher", "model")
    written = steps["quantize"].inputs
    assert {name: written[name] for name in ("learned-record", "learned-model", "learned-plan", "plan")} == {
        "learned-record": Output("qat", "trained.json"),
        "learned-model": Output("qat", "model.onnx"),
        "learned-plan": Output("qat", "plan.json"),
        "plan": Path("mine.json"),
    }
    assert {name for name in written if name.startswith("ptq-")} == {f"ptq-{name}" for name in quantize.STAGE.outputs}
    assert written["onnx"] == steps["quantize-ptq"].inputs["onnx"] == Output("export-teacher", "model.onnx")
    distilled = steps_of(*BEST, "distill.epochs=9", "qat.epochs=9")
    assert distilled["qat"].inputs["logits"] == Output("teacher-logits", "logits.npy")  # the student asked


@pytest.mark.parametrize(
    "overrides",
    [
        ["qat.enabled=false"],
        ["qat.epochs=0"],
        ["quantize.effort='balanced'"],
        ["quantize.max_drop='off'"],
        ["quantize.precision='fp16'"],
        ["data.kind=imagefolder", "data.path=x", "teacher.epochs=0", "distill.enabled=false", "prune.enabled=false"],
    ],
)
def test_without_a_budget_that_best_could_miss_or_images_to_learn_from_nothing_is_trained(overrides: list[str]) -> None:
    assert not {"qat", "quantize-ptq"} & steps_of(*BEST, *overrides).keys()


def test_a_finished_graph_is_trained_where_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(residual_net(opset=20).SerializeToString())
    config = load_config(None, [f"teacher.model={tmp_path / 'net.onnx'}", "qat.enabled=true"])
    steps = {step.name: step for step in steps_for(config, load_target("jetson").profile)}
    assert {"onnx", "data", "ptq", "layers"} == steps["qat"].inputs.keys()
    assert used_as_it_is(config) == [
        "net.onnx is a finished network and used as it is: qat trains it, distill and prune are off"
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["quantize.activations='dynamic'"],
            r"quantize\.activations is 'dynamic' and qat\.enabled is true; rule: scales",
        ),
        (
            ["quantize.precision='fp32'"],
            r"qat\.enabled is true, quantize\.precision 'fp32', and .* qat trains for int8",
        ),
        (["qat.schedule=cosine-restarts", "qat.restart_epochs=99"], r"qat\.restart_epochs is 99 and qat\.epochs is 5"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, "qat.enabled=true", *overrides, target="cpu-x86_64")


def test_keys_of_qat_that_do_not_fit_are_said_with_the_way_around_it(tmp_path: Path) -> None:
    asked = ("qat.schedule=cosine-restarts", "qat.restart_epochs=99")
    planned(tmp_path, *asked)  # nobody trains
    with pytest.raises(ConfigError, match=r"not longer than training; or set qat\.enabled = false, which quantize\."):
        planned(tmp_path, *BEST, *asked)


def test_an_operator_that_torch_has_not_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: run for name, run in graph_network.OPERATORS.items() if name != "Relu"}
    monkeypatch.setattr(graph_network, "OPERATORS", few)
    with pytest.raises(StageFailed, match=r"qat: node 'model/Relu' \(Relu\): its operator is not among what learns"):
        rehearsed(tmp_path, "qat.enabled=true")
    rehearsed(tmp_path, *BEST)  # which goes without


def test_training_that_is_kept_needs_no_note() -> None:
    assert notes(Config(), {}, {"validation_top1_ptq": 0.9, "validation_top1": 0.9, "trained": 1.0, "kept": 1.0}) == []
