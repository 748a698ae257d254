"""The list of steps that a configuration makes, and the fingerprints of the stages' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dlx_deploy.config import Config, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.listing import image_names
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Stage, Step, Tree
from dlx_deploy.stages import order
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.registry import STAGES, load_stage
from dlx_deploy.stages.support.training import NoParams
from dlx_deploy.targets import Profile, load_target

from .fingerprints import PATH, all_fingerprints

JETSON = load_target("jetson").profile
FINGERPRINTS = all_fingerprints()


def inputs_of(config: Config, step: str) -> dict[str, Any]:
    return dict(next(s for s in steps_for(config, JETSON) if s.name == step).inputs)


@pytest.mark.parametrize("name", STAGES)
def test_the_code_behind_a_stage_is_what_its_version_says(name: str) -> None:
    expected, seen = json.loads(PATH.read_text())[name], FINGERPRINTS[name]
    old, new = set(expected["code"].items()), set(seen["code"].items())
    changed = sorted({part for part, _ in old ^ new})
    assert seen == expected, (
        f"the code behind stage {name!r} changed ({', '.join(changed) or 'its version'}): if it gives other bytes for "
        "the same inputs, raise its version; then run: python tests/stages/fingerprints.py"
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_what_it_uses(name: str) -> None:
    stage = load_stage(name)
    assert stage.name == name
    assert set(stage.uses) <= set(JETSON.__struct_fields__)
    assert len(set(stage.inputs)) == len(stage.inputs)


def test_each_step_comes_after_what_it_needs() -> None:
    done: set[str] = set()
    for step in steps_for(Config(), JETSON):
        needs = {s.step for s in step.inputs.values() if isinstance(s, Output)}
        assert needs <= done, step.name
        done.add(step.name)


def test_what_is_left_out_is_bridged() -> None:
    full = load_config(None)
    assert inputs_of(full, "quantize")["onnx"] == Output("export-pruned", "model.onnx")
    unpruned = load_config(None, ["prune.enabled=false"])
    assert inputs_of(unpruned, "quantize")["onnx"] == Output("export-student", "model.onnx")
    bare = load_config(None, ["prune.enabled=false", "distill.enabled=false"])
    assert inputs_of(bare, "quantize")["onnx"] == Output("export-teacher", "model.onnx")
    undistilled = load_config(None, ["distill.enabled=false"])
    assert inputs_of(undistilled, "prune")["model"] == Output("teacher", "model")
    compared = ("teacher", "pruned", "quantized")
    found = [f"evaluated-{model}" for model in compared]
    assert set(inputs_of(undistilled, "verify")) == {*compared, *found, "shipped", "data", "sensitivity"}


def test_paths_are_inputs_and_never_parameters() -> None:
    config = load_config(
        None,
        [
            "data.kind=imagefolder",
            "data.path=/data/here",
            "teacher.model=/models/net.py:make",
            "teacher.checkpoint=/models/w.pt",
        ],
    )
    steps = {s.name: s for s in steps_for(config, JETSON)}
    assert "/" not in repr(steps["data"].params) + repr(steps["teacher"].params)
    assert steps["data"].inputs["images"] == Tree(Path("/data/here"), image_names)
    assert str(steps["teacher"].inputs["source"]) == "/models/net.py"
    assert str(steps["teacher"].inputs["checkpoint"]) == "/models/w.pt"


def test_the_library_that_makes_a_network_is_a_tool_wherever_it_is_rebuilt() -> None:
    def naming(tool: str, *overrides: str) -> set[str]:
        return {s.name for s in steps_for(load_config(None, overrides), JETSON) if tool in s.stage.tools}

    assert naming("timm") == naming("transformers") == set()
    of_teacher = {"teacher", "teacher-logits", "distill", "prune", "export-teacher"}
    assert naming("timm", "teacher.model=timm:resnet18") == of_teacher
    unaugmented = ["distill.shift_px=0", "prune.shift_px=0"]
    asked_once = {"teacher", "teacher-logits", "export-teacher"}
    assert naming("timm", "teacher.model=timm:resnet18", *unaugmented) == asked_once
    of_student = {"distill", "export-student", "prune", "export-pruned"}
    assert naming("timm", "distill.model=timm:resnet18") == of_student


@pytest.mark.parametrize(
    ("overrides", "tools"),
    [
        ([], ("numpy", "pillow", "scikit-learn")),
        (["data.kind=imagefolder", "data.path=/photos", "data.height=8"], ("numpy", "pillow")),
        (["data.kind=text", "data.path=/texts"], ("numpy", "tokenizers")),
        (["data.kind=docstrings"], ("numpy", "tokenizers", "scikit-learn", "torch")),
    ],
)
def test_data_rest_on_the_libraries_of_their_own_kind_alone(overrides: list[str], tools: tuple[str, ...]) -> None:
    config = load_config(None, ["teacher.model=vit", *overrides])
    data = next(step for step in steps_for(config, JETSON) if step.name == "data")
    assert data.stage.tools == tools


def test_an_image_folder_needs_a_path() -> None:
    with pytest.raises(ConfigError, match=r"data\.path is ''; data\.kind 'imagefolder' needs the folder"):
        steps_for(load_config(None, ["data.kind=imagefolder"]), JETSON)


def thin(job: Job[NoParams]) -> Metrics:
    (job.out / "model.onnx").write_bytes(job.inputs["onnx"].read_bytes())
    return {}


def bind_thin(config: Config, profile: Profile, upstream: Offers) -> list[Bound]:
    *_, source = upstream.candidates.values()
    name = config.name if config.name in ("teacher", "shipped") else "thinned"
    return [
        Bound(Step("thin", THIN, NoParams(), {"onnx": source}), Offers(candidates={name: Output("thin", "model.onnx")}))
    ]


THIN = Stage("thin", 1, NoParams, ("onnx",), ("model.onnx",), thin, bind=bind_thin)


@pytest.fixture
def thinning(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration with one stage more, which no other file knows, after the last export."""
    monkeypatch.setattr(order, "load_stage", lambda name: THIN if name == "thin" else load_stage(name))
    return Config(stages={"thin": {"after": "export"}})


def test_a_stage_that_no_other_knows_adds_a_candidate(thinning: Config) -> None:
    steps = {step.name: step for step in steps_for(thinning, JETSON)}
    verified, thinned = steps["verify"], Output("thin", "model.onnx")
    assert verified.params.candidates == ("teacher", "student", "pruned", "thinned", "quantized")  # type: ignore[attr-defined]
    names = ["teacher", "student", "pruned", "thinned", "quantized"]
    assert list(verified.inputs) == [*names, *(f"evaluated-{name}" for name in names), "shipped", "data", "sensitivity"]
    assert steps["evaluate-thinned"].inputs == {"model": thinned, "data": Output("data", "data")}
    assert verified.inputs["thinned"] == thinned
    assert steps["quantize"].inputs["onnx"] == steps["compile"].inputs["onnx"] == thinned
    assert steps["compile"].inputs["quantized"] == Output("quantize", "model.onnx")
    assert load_stage("verify").inputs == ("shipped", "data", "sensitivity")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("teacher", "teacher is offered by an earlier stage too; choose another name"),
        ("shipped", "a candidate is called shipped, as an input of verify is; choose another name"),
    ],
)
def test_a_name_that_is_taken_is_refused(thinning: Config, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steps_for(replace(thinning, name=name), JETSON)


def test_a_stage_out_of_order_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "ORDER", ("teacher", "data"))
    with pytest.raises(ValueError, match="no earlier stage offers 'data'; offered: nothing"):
        steps_for(Config(), JETSON)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"thin": {}},
            r"stages\.thin\.after is ''; rule: the stage behind which .*; valid names: baseline, calibrate, compile",
        ),
        ({"thin": {"after": "exprot"}}, r"stages\.thin\.after is 'exprot'; rule: .*; nearest valid name: 'export'"),
        ({"prune": {"after": "data"}}, r"'prune' is a stage of dlx-deploy itself; its keys belong into \[prune\]"),
        (
            {"thim": {"after": "export"}},
            r"stage 'thim' is not known; valid names: .*; or install the package that",
        ),
    ],
)
def test_what_cannot_be_a_stage_of_another_package(stages: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steps_for(Config(stages=stages), JETSON)
