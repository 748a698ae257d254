"""A network with one layer that INT8 destroys: what is tried, what is kept, and what is said of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from dlx_deploy.config import Config, Gate, Quantize, load_config
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.quantization import quantize, sensitivity
from dlx_deploy.graph.quantization.kit import learned_rounding
from dlx_deploy.graph.quantization.kit.judge import Judge
from dlx_deploy.graph.quantization.quantize import quantize_model
from dlx_deploy.graph.quantization.trials import (
    LayerSensitivity,
    Sensitivity,
    Trial,
    read_graphs,
    read_sensitivity,
    read_trials,
    written,
)
from dlx_deploy.pipeline.stage import Job, Output
from dlx_deploy.stages import verify
from dlx_deploy.stages.quantize import STAGE, notes
from dlx_deploy.stages.support.requested import QuantizeParams
from dlx_deploy.stages.support.validating import Validation, is_beyond, judged_by
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.verification import Drop

from ...arrays import run_onnx
from ...datasets import held_images
from ...onnx_fixtures import Net
from .planning import planned
from .verifications import outputs

Run = Callable[..., dict[str, Path]]
LABELS = np.arange(96) % 4


def textures() -> NDArray[np.uint8]:
    """uint8[96, 8, 8, 1]: blank, across, down and chequered, with some noise."""
    rows, columns = np.mgrid[:8, :8]
    kinds = np.stack([np.ones((8, 8)), rows % 2, columns % 2, (rows + columns) % 2])
    noise = np.random.default_rng(0).integers(0, 40, (96, 8, 8))
    return (kinds[LABELS] * 160 + noise).astype(np.uint8)[..., None]


PICTURES = textures()


@functools.cache
def chain(loudness: float = 5000.0, opset: int = 20) -> bytes:
    """conv1 → conv2 → conv3 → conv4 → head, right on every texture. A channel of conv2 is nothing but a large constant
    that nobody reads: in one scale with the others, it leaves what reads them a step or two."""
    net, x = Net(opset=opset), ""
    for number in range(1, 5):
        x = net.conv(f"conv{number}", x or net.planes(), 8 if x else 1, 8)
        x = net.add(f"relu{number}", "Relu", x)
    model = net.head(x, 8)
    edit(model, "conv2.weight", lambda w: w.__setitem__(0, 0))
    edit(model, "conv2.bias", lambda b: b.__setitem__(0, loudness))
    edit(model, "conv3.weight", lambda w: w.__setitem__((slice(None), 0), 0))
    edit(model, "fc.weight", lambda w: w.__setitem__(slice(None), np.eye(10, 8)))
    edit(model, "fc.bias", lambda b: b.fill(0))
    features = run_onnx(model.SerializeToString(), PICTURES, exact_qdq=False)[:, :8]
    wanted = np.eye(10)[LABELS]
    with_one = np.column_stack([features, np.ones(96)])
    ridge = 0.01 * np.eye(9)  # no large weights that would magnify noise
    fitted = np.linalg.solve(with_one.T @ with_one + ridge, with_one.T @ wanted)
    edit(model, "fc.weight", lambda w: w.__setitem__(slice(None), fitted[:8].T))
    edit(model, "fc.bias", lambda b: b.__setitem__(slice(None), fitted[8]))
    return model.SerializeToString()


def edit(model: ModelProto, name: str, change: Callable[[NDArray[Any]], None]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The stage's outputs for ``model``, which is right on every image and its own teacher."""

    def run(model: bytes, target: str = "jetson", teacher: str = "", name: str = "out", **params: Any) -> Any:
        validation = params.pop("validation", 96)
        source = tmp_path / "m.onnx"
        source.write_bytes(model)
        held = held_images(PICTURES, LABELS, classes=10)
        held.header.splits["validation"] = validation
        monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held)
        inputs = {"onnx": source, "data": tmp_path, "reference": tmp_path / (teacher or "m.onnx")}
        if "plan" in params:
            inputs["plan"] = params.pop("plan")
        out = tmp_path / name
        out.mkdir()
        asked = QuantizeParams(**{"max_drop": 0.1, **params})
        kept = tmp_path / f"{name}-checkpoints"
        STAGE.run(Job(asked, inputs, out, load_target(target).profile, checkpoints=kept, threads=1))
        return {path.name: path for path in out.iterdir()}

    return run


def layers_of(files: Mapping[str, Path], precision: str) -> set[str]:
    layers = json.loads(files["layers.json"].read_bytes())["layers"]
    return {name for name, kind in layers.items() if kind == precision}


def in_bytes(files: Mapping[str, Path]) -> dict[str, bytes]:
    found = [path for part in files.values() for path in ([part] if part.is_file() else part.iterdir())]
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("target", "floating", "restored"),
    [
        ("jetson", "fp16", {"conv3/Conv"}),
        ("jetson-xavier-nx", "fp32", {"conv3/Conv"}),  # opset 16 knows no FP16 Q/DQ
        ("cpu-x86_64", "fp32", {"conv2/Conv", "conv3/Conv"}),  # there conv2 writes integers too
    ],
)
def test_the_layers_that_int8_destroys_are_restored_and_no_others(
    run: Run, target: str, floating: str, restored: set[str]
) -> None:
    files = run(chain(opset=17 if target == "jetson-xavier-nx" else 20), target)
    assert layers_of(files, floating) == restored
    assert layers_of(files, "int8") == {*(f"conv{n}/Conv" for n in range(1, 5)), "logits/Gemm"} - restored
    trials, costs = read_trials(files["trials.json"]), read_sensitivity(files["sensitivity.json"])
    assert set(trials.restored) == restored
    first, *others = trials.trials
    last = others[len(restored) - 1]
    assert [trial.verdict for trial in trials.trials[: len(restored) + 1]] == ["missed"] * len(restored) + ["met"]
    tried = read_graphs(files["tried"])
    assert [graph.trial for graph in tried.graphs] == list(trials.trials)
    assert tried.graphs[tried.given].trial == last
    assert {n for n, kind in tried.graphs[tried.given].layers.items() if kind == "int8"} == layers_of(files, "int8")
    assert (first.restored, first.int8_layers, first.int8_macs) == ((), 5, 1.0)
    assert first.score < 0.7 < last.score
    assert (first.sqnr_db or 0) < 0 < 8 < (last.sqnr_db or 0)
    assert 0 < last.int8_macs < 1
    assert {layer.layers[0] for layer in costs.layers if layer.restored} == restored
    ratios = [layer.sqnr_db for layer in costs.layers]
    assert ratios == sorted(ratios)
    assert ratios[len(restored) - 1] < 0 < 8 < ratios[len(restored)]
    (note,) = notes(files, {})
    assert f"INT8 misses the budget on 96 validation samples: top-1 {100 * first.score:.2f} %, FP32 100.00 %" in note
    assert f"; {len(restored)} of 5 INT8 layers are restored: {100 * last.score:.2f} %; the costliest layers" in note


def test_what_is_chosen_is_what_exclude_and_the_plan_given_back_make(run: Run) -> None:
    chosen = run(chain())
    by_name = run(chain(), name="by-name", exclude=("conv3",), max_drop="off")
    by_plan = run(chain(), name="by-plan", plan=chosen["plan.json"], max_drop="off")
    for name in ("model.onnx", "layers.json", "plan.json"):
        assert chosen[name].read_bytes() == by_name[name].read_bytes() == by_plan[name].read_bytes()
    assert json.loads(chosen["ranges.json"].read_bytes())["tensors"]


def test_a_layer_left_alone_between_restored_ones_is_restored_too_for_who_knows_the_speed(run: Run) -> None:
    """Before conv2 and conv3 stands conv1, which reads the image: on integers it has nobody to talk to."""
    files = run(chain(), "cpu-x86_64")
    tried, trials = read_graphs(files["tried"]), read_trials(files["trials.json"])
    last = trials.trials[-1]
    assert set(last.restored) == {"conv1/Conv", "conv2/Conv", "conv3/Conv"}
    assert (last.verdict, set(trials.restored)) == ("met", {"conv2/Conv", "conv3/Conv"})
    assert [bool(graph.file) for graph in tried.graphs] == [False, False, False, True]
    graph = files["tried"] / tried.graphs[-1].file
    by_name = run(chain(), "cpu-x86_64", name="by-name", exclude=("conv[123]/Conv",), max_drop="off")
    assert graph.read_bytes() == by_name["model.onnx"].read_bytes()
    assert sum(cost.macs for cost in tried.graphs[0].costs) == sum(cost.macs for cost in tried.graphs[-1].costs)


def test_what_effort_learned_is_not_learned_again_in_each_trial(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = list[int]()
    in_turn = learned_rounding.rounded_in_turn

    def counted(*arguments: Any) -> Any:
        learned.append(1)
        return in_turn(*arguments)

    monkeypatch.setattr(learned_rounding, "rounded_in_turn", counted)
    tried = Validation.trial

    def missed_at_first(bench: Validation, name: str, *arguments: Any) -> Trial:
        trial = tried(bench, name, *arguments)
        return msgspec.structs.replace(trial, verdict="missed") if name == "int8" else trial

    monkeypatch.setattr(Validation, "trial", missed_at_first)
    asked: dict[str, Any] = {"effort": "best", "model": chain()}
    whole = run(**asked, name="whole", max_drop="off")
    once, steps = len(learned), decisions(whole)
    assert once > 0
    files = run(**asked)
    assert read_trials(files["trials.json"]).restored
    assert len(learned) == 2 * once
    assert decisions(files).keys() == steps.keys()
    left = {name.rpartition("/")[0] for name in layers_of(files, "int8")}
    ours, theirs = (weights(part["model.onnx"]) for part in (files, whole))
    same = {name for name in ours.keys() & theirs.keys() if name.partition(".")[0] in left}
    assert same
    assert all(np.array_equal(ours[name], theirs[name]) for name in same)


def decisions(files: Mapping[str, Path]) -> dict[str, bool]:
    return {step["step"]: step["kept"] for step in json.loads(files["decisions.json"].read_bytes())["steps"]}


def weights(path: Path) -> dict[str, NDArray[Any]]:
    """The integers of each layer's weights."""
    tensors = (numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer)
    names = [t.name for t in onnx.load(str(path)).graph.initializer]
    return {n: t for n, t in zip(names, tensors, strict=True) if t.dtype == np.int8 and t.ndim > 1}


def test_int8_that_keeps_to_the_budget_keeps_its_bytes_and_the_teacher_is_not_run(run: Run) -> None:
    model = chain(loudness=1.0)
    looked = run(model, teacher="no-such-file", max_drop=0.0, name="looked")
    trials = read_trials(looked["trials.json"])
    assert trials.trials[0].score == 1.0
    assert (trials.note, trials.judged_by, trials.reference_score, len(trials.trials)) == ("", "", None, 1)
    assert not read_sensitivity(looked["sensitivity.json"]).layers
    assert not notes(looked, {})
    ignored = run(model, teacher="no-such-file", max_drop="off")
    assert read_trials(ignored["trials.json"]).note == "quantize.max_drop is 'off': INT8 was not held against a budget"
    assert {n: b for n, b in in_bytes(looked).items() if n != "trials.json"} == {
        n: b for n, b in in_bytes(ignored).items() if n != "trials.json"
    }
    assert not read_graphs(looked["tried"]).graphs


def test_data_without_a_validation_split_have_nothing_to_hold_int8_against(run: Run) -> None:
    files = run(chain(), validation=0)
    assert read_trials(files["trials.json"]).note == "there are no validation samples to hold INT8 against a budget on"
    assert len(layers_of(files, "int8")) == 5


def test_answers_in_integers_tell_no_layer_from_another(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "compares", False)
    files = run(chain())
    trials = read_trials(files["trials.json"])
    assert trials.note.startswith("the network answers in integers, which are not near or far")
    assert [trial.verdict for trial in trials.trials] == ["missed"]
    assert len(layers_of(files, "int8")) == 5


@pytest.mark.parametrize("by", ["precision", "plan"])
def test_int8_that_was_asked_for_by_name_is_measured_and_stays(run: Run, tmp_path: Path, by: str) -> None:
    (tmp_path / "mine.json").write_text('{"schema": 1, "layers": {"conv3/Conv": {}}}')
    asked: dict[str, Any] = {"precision": "int8"} if by == "precision" else {"plan": tmp_path / "mine.json"}
    files = run(chain(), **asked)
    assert len(layers_of(files, "int8")) == 5
    assert read_trials(files["trials.json"]).note == "INT8 was asked for by name or trained, and stays"
    assert read_sensitivity(files["sensitivity.json"]).layers[0].layers == ("conv3/Conv",)
    (note,) = notes(files, {})
    assert "quantize.precision = 'auto', without quantize.plan and [qat], would restore them" in note
    assert "conv3/Conv" in note


@pytest.mark.parametrize(("target", "floating"), [("jetson", "fp16"), ("cpu-x86_64", "fp32")])
def test_nothing_is_left_in_int8_where_no_layer_can_be(
    run: Run, monkeypatch: pytest.MonkeyPatch, target: str, floating: str
) -> None:
    tried = Validation.trial

    def missed(*arguments: Any) -> Trial:
        return msgspec.structs.replace(tried(*arguments), verdict="missed")

    monkeypatch.setattr(Validation, "trial", missed)
    files = run(chain(), target)
    assert len(layers_of(files, floating)) == 5
    assert json.loads(files["layers.json"].read_bytes())["precision"] == floating
    trials = read_trials(files["trials.json"])
    assert [len(trial.restored) for trial in trials.trials] == [0, 1, 2, 4]
    assert len(trials.restored) == 5
    assert trials.note == "no layer is left in INT8: with the last of them the budget was missed"
    (note,) = notes(files, {})
    assert f"; {trials.note}; the costliest layers" in note


def test_a_killed_search_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(chain(), name="whole")
    monkeypatch.undo()
    made = count_writes(monkeypatch, stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        run(chain())
    assert made == [4]
    out = whole["trials.json"].parent.with_name("out")
    out.rename(out.with_name("killed"))
    monkeypatch.undo()
    made = count_writes(monkeypatch)
    again = run(chain())
    assert in_bytes(again) == in_bytes(whole)
    assert made == [1 + 5 - 3 + 1]  # INT8, each layer alone but the three that are known, and the one trial


def count_writes(monkeypatch: pytest.MonkeyPatch, stop_at: int = 99) -> list[int]:
    """How many graphs are written, a list of one number; the one behind ``stop_at`` is interrupted."""
    made = [0]

    def counted(*arguments: Any) -> Any:
        if made[0] == stop_at:
            raise KeyboardInterrupt
        made[0] += 1
        return quantize_model(*arguments)

    for place in (quantize, sensitivity):
        monkeypatch.setattr(place, "quantize_model", counted)
    return made


@pytest.mark.parametrize(
    ("place", "graph"),
    [(quantize, "conv3/Conv in floating point"), (sensitivity, "conv1/Conv alone in INT8")],
    ids=["trial", "sensitivity"],
)
def test_a_graph_that_cannot_be_written_says_why_it_was_tried(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: ModuleType, graph: str
) -> None:
    def refuses(source: Path, out: Path, samples: Any, request: Any, *told: Any) -> Any:
        if request.given.layers:
            raise StageFailed("the graph breaks a rule")
        return quantize_model(source, out, samples, request)

    monkeypatch.setattr(place, "quantize_model", refuses)
    message = rf"breaks a rule; the graph with {graph} was tried as .*max_drop: set that to 'off', or"
    with pytest.raises(StageFailed, match=message):
        run(chain())


@pytest.mark.parametrize(
    ("fp32", "int8", "by", "beyond"),
    [
        (Drop(0.0, 0.015), Drop(0.01, 0.03), "bound", True),  # FP32 shows what INT8 does not
        (Drop(0.0, 0.015), Drop(0.002, 0.02), "bound", False),
        (Drop(0.0, 0.024), Drop(0.02, 0.06), "drop", False),  # too few samples for any bound
        (Drop(0.0, 0.024), Drop(0.021, 0.06), "drop", True),
        (Drop(0.03, 0.05), Drop(0.049, 0.08), "fp32", False),  # FP32 is beyond the budget already
        (Drop(0.03, 0.05), Drop(0.051, 0.08), "fp32", True),
    ],
)
def test_what_int8_is_held_against(fp32: Drop, int8: Drop, by: str, beyond: bool) -> None:
    assert judged_by(0.02, fp32) == by
    assert is_beyond(0.02, fp32, int8) is beyond


@pytest.mark.parametrize(
    ("given", "params", "reads_teacher"),
    [
        ([], {"max_drop": 0.02}, True),
        (["gate.max_drop=0.1", "gate.confidence=0.9"], {"max_drop": 0.1, "confidence": 0.9}, True),
        (["quantize.max_drop=0"], {"max_drop": 0.0}, True),
        (["quantize.max_drop=off", "gate.max_drop=0.1", "gate.confidence=0.9"], {"max_drop": "off"}, False),
        (["quantize.precision=fp16", "gate.max_drop=0.1"], {"max_drop": "off", "precision": "fp16"}, False),
        (["distill.enabled=false", "prune.enabled=false"], {"max_drop": 0.02}, False),  # it is what is quantized
    ],
)
def test_a_budget_is_in_the_key_where_something_is_held_against_it(
    tmp_path: Path, given: list[str], params: dict[str, Any], reads_teacher: bool
) -> None:
    step = next(step for step in planned(tmp_path, *given).steps if step.stage is STAGE)
    assert step.params == QuantizeParams(**params)
    assert step.inputs.get("reference") == (Output("export-teacher", "model.onnx") if reads_teacher else None)


@pytest.mark.parametrize("value", ["gates", "1.5", "-0.1"])
def test_budgets_that_are_none(value: str) -> None:
    with pytest.raises(ConfigError, match=r"quantize\.max_drop is "):
        load_config(None, [f"quantize.max_drop={value}"])


def test_a_gate_that_fails_names_what_int8_costs(tmp_path: Path) -> None:
    files = outputs(tmp_path, 90, 10)
    budgets = Config(gate=Gate(max_drop=0.02), quantize=Quantize())
    layers = [
        LayerSensitivity(layers=("worst\n/Conv",), sqnr_db=1.0, agreement=0.5, restored=True),
        LayerSensitivity(layers=("a/Conv", "a/Conv_2"), sqnr_db=12.34, agreement=0.9),
        LayerSensitivity(layers=("b/Conv\x1b[2J",), sqnr_db=20.0, agreement=0.9),
    ]
    files["sensitivity.json"] = tmp_path / "sensitivity.json"
    files["sensitivity.json"].write_bytes(written(Sensitivity(samples=64, layers=tuple(layers))))
    text = verify.judge(budgets, files, {})[0].text
    assert "; quantization loses 8.00 points of it (against teacher); of those still in INT8, the costliest" in text
    assert (
        "INT8): a/Conv and a/Conv_2 12.3 dB, b/Conv\\u001b[2J 20.0 dB; quantize.exclude = ['a/Conv', 'a/Conv_2',"
        in text
    )
    assert "worst" not in text
    files["sensitivity.json"].write_bytes(written(Sensitivity()))
    text = verify.judge(budgets, files, {})[0].text
    assert "INT8 kept to its budget on the validation split, or was not held against one: a smaller quantize" in text
    passing = outputs(tmp_path, 2, 1) | {"sensitivity.json": files["sensitivity.json"]}
    assert "quantization loses" not in verify.judge(budgets, passing, {})[0].text


def test_the_graphs_are_valid(run: Run) -> None:
    onnx.checker.check_model(onnx.load(str(run(chain(), "cpu-x86_64")["model.onnx"])), full_check=True)
