"""What ``[distill]`` may say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.config import Data, Distill, Teacher, load_config
from dlx_deploy.errors import ConfigError, EnvironmentMissing, StageFailed
from dlx_deploy.nn.weights.network import load_model
from dlx_deploy.pipeline.stage import Job, Output
from dlx_deploy.stages.distill import STAGE
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare

from ..conftest import image_folder
from .support.planning import NET, planned, rehearsed, texts

SCENES = ["teacher.model=unet", "distill.model=unet", "prune.enabled=false"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.model=resnett8"], r"distill: distill\.model is 'resnett8', unknown; nearest valid name: 'resnet8'"),
        (["distill.model=transformer"], r"model 'transformer' is for texts, and the data are images"),
        (["distill.loss=dice"], r"distill\.loss is 'dice'; image-classification has: 'cross-entropy'"),
        (["distill.batch_size=1"], r"distill\.batch_size is 1; batch normalisation needs at least 2 images"),
        (["distill.model=none.py:make"], r"distill: source none\.py does not exist; correct the path"),
        (["distill.method=kd"], r"distill\.method is 'kd'; (nearest valid name: 'dkd'|valid names: dist, dkd, hinton)"),
        (["distill.temperature=0"], r"distill\.temperature is 0; rule: Expected `float` > 0"),
        (["distill.beta=2"], r"beta is 2 and method is 'hinton'; rule: with 'dkd' or 'dist'"),
        (["prune.method=dist", "prune.standardize=true"], r"standardize is true and method is 'dist', which looks at"),
        (
            ["distill.method=dkd", "distill.mixup=0.2"],
            r"mixup is 0\.2 and method is 'dkd', which asks for the class of",
        ),
        (["distill.hint_weight=2"], r"hint_method is 'projector', hint_weight 2 and hints is \[\]; rule: they say"),
        (["distill.hint_method=fitnets", "distill.hints=['a']"], r"distill\.hint_method is 'fitnets'; valid names: "),
        (["distill.checkpoint=none.pt"], r"distill: checkpoint none\.pt does not exist; correct the path"),
        (
            ["distill.checkpoint=w.pt", "distill.pretrained=X"],
            r"checkpoint is 'w\.pt' and pretrained 'X'; rule: one of them",
        ),
        (["distill.classes=['a']"], r"classes is \['a'\] and checkpoint is not set; rule: with it"),
        (["distill.checkpoint_key=ema"], r"checkpoint_key is 'ema' and checkpoint is not set; rule: with it"),
        (
            ["distill.pretrained=DEFAULT"],
            r"distill\.pretrained is 'DEFAULT'; 'resnet8' has no weights .* give a file as distill\.checkpoint",
        ),
        (["training.method=dkd"], r"training\.method is 'dkd'; rule: .* set distill\.method and prune\.method"),
        (
            ["data.kind=scenes", *SCENES, "distill.method=dist"],
            r"distill\.method is 'dist'; semantic-segmentation has: 'hinton'",
        ),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


def test_what_a_plan_refuses_for_texts(tmp_path: Path) -> None:
    words = texts(tmp_path / "texts")
    with pytest.raises(
        ConfigError,
        match=r"model 'resnet8' is for images, and the data are texts; .*'hf:NAME_OR_PATH'",
    ):
        planned(tmp_path, *words, "distill.model=resnet8")
    with pytest.raises(ConfigError, match=r"teacher\.model is 'hf:\./none', and there is no such folder"):
        planned(tmp_path, *words, "teacher.model=hf:./none")


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        (NET, "make_nett", r"net\.py has no function 'make_nett'; nearest valid name: 'make_net'"),
        ("x = 1", "make", r"net\.py has no function 'make'; the file defines no function"),
        ("def make(:", "make", r"net\.py is no Python: invalid syntax"),
    ],
)
def test_a_function_that_is_not_in_the_user_s_file(tmp_path: Path, text: str, model: str, message: str) -> None:
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, f"distill.model={tmp_path / 'net.py'}:{model}")


@pytest.mark.parametrize("text", ["from elsewhere import *", "if True:\n    make = 1", "globals()['make'] = 1"])
def test_a_function_that_may_be_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    assert planned(tmp_path, f"distill.model={tmp_path / 'net.py'}:make")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["distill.arguments={widht=1}"],
            r"distill: resnet8: unknown argument 'widht' \(1\); nearest valid name: 'width'",
        ),
        (["distill.hints=['layr2']"], r"distill\.hints: 'layr2' is no layer of the student; nearest .*'layer2'"),
        (
            ["distill.hints=['layer2=layer1']"],
            r"the student's 'layer2' gives \[2, \d+, 4, 4\], the teacher's 'layer1' ",
        ),
        (["distill.model=resnet18", "distill.arguments={no=1}"], r"distill: resnet18: torchvision does not build it"),
        (["distill.model=vgg11", "distill.arguments={width=2}"], r"distill: "),
        (["distill.model=timm:resnet19"], r"distill: timm has no model 'resnet19'; it has "),
        (
            ["distill.model=timm:resnet18", "distill.arguments={no=1}"],
            r"distill: timm:resnet18: timm does not build it",
        ),
    ],
)
def test_what_a_build_refuses_at_its_start(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, *overrides)


def test_a_function_for_one_number_of_classes(tmp_path: Path) -> None:
    text = NET.replace("def make_net(num_classes):", "def make_net(num_classes):\n    assert num_classes == 3\n   ")
    (tmp_path / "net.py").write_text(text.replace("Linear(64,", "Linear(192,"))
    given = ["prune.enabled=false", f"distill.model={tmp_path / 'net.py'}:make_net"]
    folder = image_folder(tmp_path / "images", {"a": 2, "b": 2, "c": 2})
    rehearsed(tmp_path, "data.kind=imagefolder", f"data.path={folder}", "data.height=8", *given)
    rehearsed(tmp_path, *texts(tmp_path / "texts"), *given)  # of texts nobody knows yet
    with pytest.raises(ConfigError, match=r"distill: .*make_net\(.* raised AssertionError"):
        rehearsed(tmp_path, *given)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("make_net", ""),
        ("other", r"distill: the model gives \[2, 10, 6, 6\] for images \[2, 1, 8, 8\]; it must give logits"),
        ("mixed", r"distill: the network's answers depend on the batch: .*the input of 'head' \(Linear\)"),
        ("wants", r"distill: .*wants\(.*raised TypeError: .*depth"),
    ],
)
def test_a_user_s_network_is_built_once_before_anything_runs(tmp_path: Path, function: str, message: str) -> None:
    (tmp_path / "net.py").write_text(NET)
    override = f"distill.model={tmp_path / 'net.py'}:{function}"
    if not message:
        return rehearsed(tmp_path, override, "prune.enabled=false")
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, override)


def test_a_user_s_network_that_cannot_be_exported_is_said_before_it_is_trained(tmp_path: Path) -> None:
    """torch takes ``len(x)`` for the one batch size that there is, and exports a graph for that."""
    (tmp_path / "net.py").write_text(NET)
    override = f"distill.model={tmp_path / 'net.py'}:counting"
    with pytest.raises(StageFailed, match=r"distill: the exported graph takes one batch size alone, .* \(2\)"):
        rehearsed(tmp_path, override, "prune.enabled=false")
    rehearsed(tmp_path, override, "prune.enabled=false", "export.batch=2")


def test_what_is_not_installed_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentMissing, match=r"distill: model 'timm:resnet18' needs timm"):
        rehearsed(tmp_path, "distill.model=timm:resnet18")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EnvironmentMissing, match=r"distill: distill\.precision is 'fp16', and there is no GPU here"):
        rehearsed(tmp_path, "distill.precision=fp16")


OTHER = "distill.teachers=[{model='resnet8', epochs=2}, {model='resnet14', epochs=3}]"


def test_other_teachers_are_steps_of_their_own(tmp_path: Path) -> None:
    config = load_config(None, [OTHER, "distill.shift_px=0", "training.learning_rate=0.3"])
    steps = {step.name: step for step in steps_for(config, load_target("jetson").profile)}
    second = steps["teacher-2"]
    assert isinstance(second.params, Teacher)
    assert (second.params.model, second.params.arguments, second.params.learning_rate) == ("resnet8", {}, 0.3)
    assert len({steps[name].seed for name in ("teacher", "teacher-2", "teacher-3")}) == 3
    assert {k: v.step for k, v in steps["distill"].inputs.items() if isinstance(v, Output)} == {
        "data": "data",
        "logits": "teacher-logits",
        "logits-2": "teacher-2-logits",
        "logits-3": "teacher-3-logits",
    }
    assert steps["teacher-3-logits"].inputs["teacher"] == Output("teacher-3", "model")
    assert isinstance(steps["distill"].params, Distill)
    assert steps["distill"].params.teachers == ()
    assert set(steps["prune"].inputs) & {"teacher-2", "logits-2"} == set()
    candidates = [name for name in steps["verify"].inputs if name.startswith("teacher")]
    assert candidates == ["teacher"]
    live = load_config(None, [OTHER, "distill.mixup=0.2"])
    (distill,) = (s for s in steps_for(live, load_target("jetson").profile) if s.name == "distill")
    assert set(distill.inputs) == {"data", "teacher", "teacher-2", "teacher-3"}


def test_paths_of_other_teachers_are_relative_to_the_file_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "deploy.toml").write_text(
        '[[distill.teachers]]\nmodel = "net.py:make_net"\ncheckpoint = "w.pt"\nepochs = 0\n[training]\nflip = true\n'
    )
    config = load_config(tmp_path / "deploy.toml")
    (other,) = config.distill.teachers
    assert (other.model, other.checkpoint) == (f"{tmp_path}/net.py:make_net", f"{tmp_path}/w.pt")
    assert (other.flip, other.epochs, other.arguments) == (True, 0, {})
    (step,) = (s for s in steps_for(config, load_target("jetson").profile) if s.name == "teacher-2")
    assert (step.inputs["checkpoint"], step.inputs["source"]) == (tmp_path / "w.pt", tmp_path / "net.py")
    assert isinstance(step.params, Teacher)
    assert (step.params.model, step.params.checkpoint) == ("model.py:make_net", ".pt")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "{model='resnett8'}",
            r"teacher-2: distill\.teachers\[0\]\.model is 'resnett8', unknown; nearest .* 'resnet8'",
        ),
        (
            "{pretrained='X'}",
            r"distill\.teachers\[0\]\.pretrained is 'X'; .* give a file as distill\.teachers\[0\]\.checkpoint",
        ),
        ("{batch_size=1}", r"distill\.teachers\[0\]\.batch_size is 1; batch normalisation needs at least 2"),
        (
            "{model='x.onnx'}",
            r"teachers\[0\]\.model is 'x\.onnx', a finished graph; rule: a network, which can be asked",
        ),
        ("{modle='x'}", r"unknown key 'modle'|Object contains unknown field `modle`"),
        ("3", r"distill\.teachers\[0\] is 3"),
    ],
)
def test_other_teachers_that_a_plan_refuses(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, f"distill.teachers=[{given}]")


def test_other_teachers_are_rehearsed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"teacher-2: .*w\.pt: does not fit the model"):
        rehearsed(tmp_path, f"distill.teachers=[{{model='resnet8', checkpoint='{tmp_path}/w.pt', epochs=0}}]")


def test_another_teacher_that_knows_nothing_is_said() -> None:
    config = load_config(None, [OTHER])
    (step,) = (s for s in steps_for(config, load_target("jetson").profile) if s.name == "teacher-3")
    assert step.notes is not None
    known = {"validation_largest_class": 0.1, "validation_samples": 120.0}
    assert step.notes({}, {"validation_top1": 0.9, **known}) == []
    (said,) = step.notes({}, {"validation_top1": 0.12, **known})
    assert said.startswith("on the validation split this teacher is not clearly better than one answer to everything")


def _saved(path: Path, model: str) -> dict[str, Any]:
    """The weights of a new network of digits' size, which are in ``path`` then."""
    torch = pytest.importorskip("torch")
    from dlx_deploy.nn.models.inputs import ImageInput
    from dlx_deploy.nn.models.registry import build_model

    torch.manual_seed(7)
    state = build_model(model, {"width": 1.0}, 10, ImageInput(1, 8, 8)).state_dict()
    torch.save({"student": state}, path)
    return dict(state)


def test_a_student_and_its_control_begin_with_the_checkpoint(tmp_path: Path) -> None:
    state = _saved(tmp_path / "w.pt", "resnet8")
    (tmp_path / "deploy.toml").write_text(
        '[distill]\nmodel = "resnet8"\ncheckpoint = "w.pt"\nepochs = 0\ncontrol = true\nclasses = ["0", "1", "2", "3", '
        '"4", "5", "6", "7", "9", "8"]\n'
    )
    config = load_config(tmp_path / "deploy.toml")
    steps = {step.name: step for step in steps_for(config, load_target("jetson").profile)}
    assert steps["distill-control"].inputs["checkpoint"] == tmp_path / "w.pt" == steps["distill"].inputs["checkpoint"]
    section = steps["distill"].params
    assert isinstance(section, Distill)
    assert section.checkpoint == ".pt"  # its content is an input, its path is not in the key
    prepare(Data(kind="digits", limit_train=64, limit_test=32), tmp_path / "data", 0)
    (tmp_path / "out").mkdir()
    given = {"data": tmp_path / "data", "checkpoint": tmp_path / "w.pt"}
    metrics = STAGE.run(Job(section, given, tmp_path / "out", threads=1, checkpoints=tmp_path / "kept"))
    assert metrics["epochs"] == 0
    kept = load_model(tmp_path / "out" / "model")[0].state_dict()
    assert kept["layer1.0.conv1.weight"].equal(state["layer1.0.conv1.weight"])
    assert kept["linear.weight"][8].equal(state["linear.weight"][9])  # in the order of the data's classes
    assert kept["linear.weight"][9].equal(state["linear.weight"][8])
    assert kept["linear.weight"][7].equal(state["linear.weight"][7])


def test_a_student_s_checkpoint_that_does_not_fit_is_said_before_the_data_are_made(tmp_path: Path) -> None:
    _saved(tmp_path / "w.pt", "resnet20")
    given = [f"distill.checkpoint={tmp_path / 'w.pt'}", "distill.model=resnet8"]
    with pytest.raises(ConfigError, match=r"distill: .*w\.pt: does not fit the model"):
        rehearsed(tmp_path, *given)
    with pytest.raises(ConfigError, match=r"distill: .*w\.pt: distill\.checkpoint_key is 'ema'; it must be a key of"):
        rehearsed(tmp_path, *given, "distill.checkpoint_key=ema")
    rehearsed(tmp_path, given[0], "distill.model=resnet20")
