"""What becomes of INT8 that missed its budget: what was trained, layers restored, or both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.graph.quantization.trials import read_trials
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.quantize import STAGE, notes
from dlx_deploy.stages.support.missed import Trained, trained_bytes
from dlx_deploy.stages.support.requested import QuantizeParams
from dlx_deploy.targets import load_target

from ...datasets import held_images
from .test_restoring import LABELS, PICTURES, chain, in_bytes, layers_of

Files = dict[str, Path]
Run = Callable[..., Files]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The stage's outputs for a ``model`` that is right on every image, with further inputs and parameters."""
    held = held_images(PICTURES, LABELS, classes=10)
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held)

    def run(name: str, model: bytes, more: Files | None = None, **params: Any) -> Files:
        source, out = tmp_path / f"{name}.onnx", tmp_path / name
        source.write_bytes(model)
        out.mkdir()
        inputs = {"onnx": source, "data": tmp_path, **(more or {})}
        asked, kept = QuantizeParams(**{"max_drop": 0.1, **params}), tmp_path / f"{name}-checkpoints"
        metrics = STAGE.run(Job(asked, inputs, out, load_target("jetson").profile, checkpoints=kept, threads=1))
        assert metrics["int8_layers"] == len(layers_of({path.name: path for path in out.iterdir()}, "int8"))
        return {path.name: path for path in out.iterdir()}

    return run


def after(run: Run, tmp_path: Path, untrained: bytes, learned: bytes, kept: bool = True, **params: Any) -> Files:
    """What is written where ``learned``, quantized without a thought, came of training ``untrained``."""
    first = run("first", untrained, missed="train", **params)
    plan = run("learned", learned, max_drop="off")["plan.json"]
    record = tmp_path / "trained.json"
    record.write_bytes(trained_bytes(Trained(trained=True, kept=kept)))
    inputs = {"learned-record": record, "learned-model": tmp_path / "learned.onnx", "learned-plan": plan}
    return run("last", untrained, inputs | {f"ptq-{name}": path for name, path in first.items()}, **params)


def test_before_training_nothing_is_restored_and_no_layer_is_looked_at(run: Run) -> None:
    files = run("first", chain(), missed="train")
    trials = read_trials(files["trials.json"])
    assert [trial.verdict for trial in trials.trials] == ["missed"]
    assert (trials.met, trials.note) == (False, "it is left to qat")
    assert len(layers_of(files, "int8")) == 5
    assert json.loads(files["sensitivity.json"].read_bytes())["layers"] == []


def test_what_keeps_to_its_budget_untrained_is_what_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("first", chain(1.0), missed="train", effort="balanced")
    monkeypatch.undo()  # the data are not opened again
    record = tmp_path / "trained.json"
    record.write_bytes(trained_bytes(Trained(trained=False, kept=False, reason="met")))
    more = {"learned-record": record} | {f"ptq-{name}": path for name, path in first.items()}
    last = run("last", chain(1.0), more, effort="balanced")
    assert in_bytes(last) == in_bytes(first)
    assert notes(last, {}) == []


def test_what_was_learned_is_written_where_it_keeps_to_the_budget(run: Run, tmp_path: Path) -> None:
    files = after(run, tmp_path, chain(), chain(1.0))
    trials = read_trials(files["trials.json"])
    assert [(trial.trained, trial.verdict) for trial in trials.trials] == [(False, "missed"), (True, "met")]
    assert len(layers_of(files, "int8")) == 5
    assert files["model.onnx"].read_bytes() == (tmp_path / "learned/model.onnx").read_bytes()
    (note,) = notes(files, {})
    assert note.endswith("FP32 100.00 %, the teacher 100.00 %; trained with its rounding (qat) 100.00 %")


def test_layers_of_what_was_learned_are_restored_where_it_misses_the_budget_still(run: Run, tmp_path: Path) -> None:
    files = after(run, tmp_path, chain(), chain(80.0), max_drop=0.0)
    trials = read_trials(files["trials.json"])
    before, learned, *more = trials.trials
    assert (before.trained, learned.trained) == (False, True)
    assert before.score < learned.score < 1
    assert more[-1].verdict == "met"
    assert layers_of(files, "fp16") == set(trials.restored) == {"conv3/Conv"}
    (note,) = notes(files, {})
    assert f"(qat) {100 * learned.score:.2f} %; 1 of 5 INT8 layers are restored: 100.00 %; the costliest" in note


def test_int8_by_name_stays_as_it_was_learned(run: Run, tmp_path: Path) -> None:
    files = after(run, tmp_path, chain(), chain(80.0), max_drop=0.0, precision="int8")
    trials = read_trials(files["trials.json"])
    assert [trial.trained for trial in trials.trials] == [False, True]
    assert len(layers_of(files, "int8")) == 5
    assert trials.note == "INT8 was asked for by name or trained, and stays"


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_learned_and_is_no_better_is_left(run: Run, tmp_path: Path, kept: bool) -> None:
    plain = run("plain", chain())
    files = after(run, tmp_path, chain(), chain(), kept)
    assert in_bytes(files) == in_bytes(plain)
    assert layers_of(files, "fp16") == {"conv3/Conv"}


def test_fp32_is_the_network_as_it_was_and_not_what_was_learned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.stages.support.restoring.fewest", lambda holds, above: 5)
    files = after(run, tmp_path, chain(), chain(80.0), max_drop=0.0, elsewhere="fp32")
    assert len(layers_of(files, "fp32")) == 5
    assert files["model.onnx"].read_bytes() == chain()
