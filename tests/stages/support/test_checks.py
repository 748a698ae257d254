"""Mistakes are said before anything runs: by a plan where milliseconds show them, else at the start of a build."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.building import build_for, load_job
from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError, DataError, DlxError, EnvironmentMissing, StageFailed
from dlx_deploy.nn.export.spec import OLDEST
from dlx_deploy.nn.models import names
from dlx_deploy.nn.models.registry import HF, TIMM, VIT, model_names
from dlx_deploy.nn.models.resnet_cifar import DEPTHS
from dlx_deploy.nn.models.sequence import SEQUENCE_DEFAULTS
from dlx_deploy.pipeline.check import check_build, rehearse_build
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Setup, Stage, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.live import QuietWatcher
from dlx_deploy.stages.data import refuse_large_batches
from dlx_deploy.stages.export import OLDEST_OPSET
from dlx_deploy.targets import load_target

from ...conftest import image_folder

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, num_classes): super().__init__(); self.head = torch.nn.Linear(64, num_classes)
    def forward(self, x): return self.head(x.flatten(1))
def make_net(num_classes): return Net(num_classes)
def other(num_classes): return torch.nn.Conv2d(1, num_classes, 3)
def wants(num_classes, depth): return Net(num_classes)
class Mixed(Net):
    def forward(self, x): return super().forward(x - x.mean(0, keepdim=True))
def mixed(num_classes): return Mixed(num_classes)
"""


def planned(tmp_path: Path, *overrides: str, target: str = "jetson") -> Build:
    return load_job(None, [target], overrides, tmp_path / ".dlx").builds[0]


def texts(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(40)))
    return ["data.kind=text", f"data.path={folder}", "teacher.model=transformer", "distill.model=transformer"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.model=resnet19"], r"teacher: teacher\.model is 'resnet19', unknown; nearest valid name: 'resnet18'"),
        (["distill.model=resnett8"], r"distill: distill\.model is 'resnett8', unknown; nearest valid name: 'resnet8'"),
        (["distill.model=hf:bert"], r"model 'hf:bert' is for texts, and the data are images; set distill\.model for"),
        (["distill.model=transformer"], r"model 'transformer' is for texts, and the data are images"),
        (["distill.batch_size=1"], r"distill\.batch_size is 1; batch normalisation needs at least 2 images"),
        (
            ["prune.schedule=cosine-restarts", "prune.restart_epochs=99"],
            r"prune\.restart_epochs is 99 and prune\.epochs is 25; .* not longer than training",
        ),
        (["teacher.pretrained=DEFAULT"], r"teacher\.pretrained is 'DEFAULT'; 'resnet20' has no weights of that kind"),
        (
            ["teacher.model=timm:resnet18", "teacher.pretrained=A1"],
            r"teacher\.pretrained is 'A1'; for 'timm:resnet18' it must be 'DEFAULT'",
        ),
        (["export.opset=99"], r"export\.opset is 99; rule: 13 to 20, the newest that jetson-orin-nano-8gb reads"),
        (["export.opset=12"], r"export\.opset is 12; rule: 13 to 20"),
        (["export.length=fixed"], r"export\.length is 'fixed', and data\.kind 'digits' has images; leave it out"),
        (["data.path=here"], r"data\.path is 'here', and data\.kind 'digits' takes none: it is scikit-learn's digits"),
        (["data.height=9"], r"data\.height is 9; the digits are 8 x 8: leave it out"),
        (["data.tokenizer=words"], r"data\.tokenizer is 'words', and data\.kind 'digits' has images"),
        (["data.mean=[0.5,0.5]"], r"data\.mean has 2 values \[0\.5, 0\.5\]; the images have 1 channels"),
        (["quantize.activations=dynamic"], r"quantize\.activations is 'dynamic', and this target's tensorrt style"),
        (["quantize.exclude=['']"], r"quantize\.exclude has ''; rule: patterns of layer names"),
        (["teacher.checkpoint=none.pt"], r"teacher: checkpoint none\.pt does not exist; correct the path"),
        (["distill.model=none.py:make"], r"distill: source none\.py does not exist; correct the path"),
        (["compile.dla_core=7"], r"compile\.dla_core is 7"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        (["quantize.precision=int8"], "jetson-nano", r"quantize\.precision is 'int8', which this target does not run"),
        (["quantize.precision=fp16"], "rpi5", r"quantize\.precision is 'fp16', which .*; it runs fp32, int8"),
        (["quantize.elsewhere=fp16"], "rpi5", r"quantize\.elsewhere is 'fp16', which this target does not run"),
        (["compile.engine=required"], "rpi5", r"compile\.engine is 'required', and rpi5 \(cpu\) runs no engine"),
        (["export.opset=17"], "jetson-nano", r"export\.opset is 17; rule: 13 to 13, the newest that jetson-nano reads"),
        (
            ["quantize.activations=dynamic", "export.batch=4"],
            "rpi5",
            r"export\.batch is 4, and with dynamic activations an answer would depend on its neighbours",
        ),
    ],
)
def test_what_a_plan_refuses_of_a_target(tmp_path: Path, overrides: list[str], target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides, target=target)


def test_what_a_plan_refuses_of_other_data(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", {"a": 3, "b": 3})
    given = ["data.kind=imagefolder", f"data.path={folder}"]
    with pytest.raises(ConfigError, match=r"data\.height is 0; data\.kind 'imagefolder' needs the height in pixels"):
        planned(tmp_path, *given)
    assert planned(tmp_path, *given, "data.height=8")
    words = texts(tmp_path / "texts")
    assert planned(tmp_path, *words)
    with pytest.raises(ConfigError, match=r"data\.height is 8, and data\.kind 'text' has texts, not images"):
        planned(tmp_path, *words, "data.height=8")
    with pytest.raises(ConfigError, match=r"distill\.model is 'resnet8', no network for texts; .*'hf:NAME_OR_PATH'"):
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


def test_the_names_known_without_torch_are_those_known_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted({*names.image_models(), *names.text_models()}) == model_names()
    assert (tuple(DEPTHS), VIT, TIMM, HF) == (names.CIFAR, names.VIT, names.TIMM, names.HF)
    assert names.text_models() == tuple(sorted(SEQUENCE_DEFAULTS))
    assert OLDEST_OPSET == OLDEST
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert names.image_models() == ()  # then the build says it


def rehearsed(tmp_path: Path, *overrides: str) -> None:
    build = build_for(load_config(None, overrides), load_target("jetson").profile)
    check_build(build)
    rehearse_build(build, Store(tmp_path / ".dlx"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["distill.arguments={widht=1}"],
            r"distill: resnet8: unknown argument 'widht' \(1\); nearest valid name: 'width'",
        ),
        (["distill.model=resnet18", "distill.arguments={no=1}"], r"distill: resnet18: torchvision does not build it"),
        (["distill.model=vgg11", "distill.arguments={width=2}"], r"distill: "),
        (["distill.model=timm:resnet19"], r"distill: timm has no model 'resnet19'; it has "),
        (
            ["distill.model=timm:resnet18", "distill.arguments={no=1}"],
            r"distill: timm:resnet18: timm does not build it",
        ),
        (["teacher.unfreeze_epochs=[99]"], r"teacher: teacher\.unfreeze_epochs is \[99\]"),
        (["quantize.exclude=['no*']"], r"quantize: quantize\.exclude: 'no\*' matches no node of the graph; its layers"),
    ],
)
def test_what_a_build_refuses_at_its_start(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, *overrides)


def test_more_than_can_be_pruned_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"prune: prune\.reduce_macs is 0\.99; with round_to = 8, .* at most 0\.\d+"):
        rehearsed(tmp_path, "prune.reduce_macs=0.99")
    words = [*texts(tmp_path / "texts"), "distill.arguments={depth=1}"]
    rehearsed(tmp_path, *words, "prune.reduce_macs=0.2")
    with pytest.raises(StageFailed, match=r"prune: prune\.reduce_macs is 0\.99; with round_to = 8"):
        rehearsed(tmp_path, *words, "prune.reduce_macs=0.99")


def test_a_checkpoint_that_does_not_fit_is_said_before_the_data_are_made(tmp_path: Path) -> None:
    import torch

    from dlx_deploy.nn.models.inputs import ImageInput
    from dlx_deploy.nn.models.registry import build_model

    spec, given = ImageInput(1, 8, 8), ["teacher.epochs=0", f"teacher.checkpoint={tmp_path / 'w.pt'}"]
    torch.save(build_model("resnet20", {"width": 2.0}, 10, spec).state_dict(), tmp_path / "w.pt")
    rehearsed(tmp_path, *given)
    with pytest.raises(ConfigError, match=r"teacher: .*w\.pt: does not fit the model"):
        rehearsed(tmp_path, *given, "teacher.model=resnet8")
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"teacher: .*w\.pt: no valid torch checkpoint"):
        rehearsed(tmp_path, *given)


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


def test_what_is_not_installed_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentMissing, match=r"distill: model 'timm:resnet18' needs timm"):
        rehearsed(tmp_path, "distill.model=timm:resnet18")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EnvironmentMissing, match=r"distill: distill\.precision is 'fp16', and there is no GPU here"):
        rehearsed(tmp_path, "distill.precision=fp16")


def test_the_default_passes_and_leaves_torch_s_generator_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rehearsed(tmp_path)
    assert torch.rand(1) == expected


class Params(msgspec.Struct, frozen=True):
    value: int = 1


def test_only_steps_that_would_run_are_rehearsed_and_before_the_first(tmp_path: Path) -> None:
    log: list[str] = []

    def stage(name: str) -> Stage[Params]:
        def run(job: Job[Params]) -> Metrics:
            log.append(f"run {name}")
            (job.out / "x").write_text(name)
            return {}

        def rehearse(setup: Setup[Params]) -> None:
            log.append(f"rehearse {name}")
            if setup.params.value < 0:
                raise DataError(f"value is {setup.params.value}")

        return Stage(
            name, 1, Params, (), ("x",), run, check=lambda setup: log.append(f"check {name}"), rehearse=rehearse
        )

    def build(second: int) -> Build:
        steps = [Step("one", stage("one"), Params(), {}), Step("two", stage("two"), Params(second), {})]
        return Build("b", None, steps, {})

    store = Store(tmp_path)
    with pytest.raises(DataError, match=r"two: value is -1"):
        run_build(build(-1), store, QuietWatcher(print))
    assert log == ["rehearse one", "rehearse two"]
    log.clear()
    run_build(build(1), store, QuietWatcher(print))
    assert log == ["rehearse one", "rehearse two", "run one", "run two"]
    log.clear()
    run_build(build(2), store, QuietWatcher(print))
    assert log == ["rehearse two", "run two"]
    log.clear()
    run_build(build(2), store, QuietWatcher(print))
    assert log == []
    check_build(build(2))
    assert log == ["check one", "check two"]


@pytest.mark.parametrize("section", ["teacher", "distill", "prune"])
def test_a_batch_larger_than_the_training_split_is_said_after_data(section: str) -> None:
    config = load_config(None, [f"{section}.batch_size=500"])
    with pytest.raises(DataError, match=rf"the training split has 400 images and batch_size is 500 \({section}\)"):
        refuse_large_batches(config, {}, {"train_images": 400.0})
    assert refuse_large_batches(config, {}, {"train_images": 500.0}) == ()
    assert refuse_large_batches(config, {}, {"train_texts": 5.0}) == ()
    off = load_config(None, [f"{section}.batch_size=500", f"{section}.epochs=0"])
    assert refuse_large_batches(off, {}, {"train_images": 400.0}) == ()


def test_every_refusal_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DlxError) as caught:
        planned(tmp_path, "export.opset=99")
    assert caught.value.exit_code == 2
