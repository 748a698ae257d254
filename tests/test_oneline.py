"""A finished network in one line: what is assumed is said, can be written, and means the same when it is read back."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image

from dlx_deploy.building import load_work
from dlx_deploy.cli import run
from dlx_deploy.commands.given import Given
from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.oneline import Brought, configured, written

from .foreign_models import foreign_net, saved
from .onnx_fixtures import digits
from .stages.test_convert import linear


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a network that knows the digits, and test images of them in class folders."""
    monkeypatch.chdir(tmp_path)
    linear(tmp_path / "linear.onnx")
    _, _, pictures, labels = digits()
    for number, (picture, label) in enumerate(zip(pictures[:400], labels, strict=False)):
        folder = tmp_path / "images" / "test" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[..., 0]).save(folder / f"{number}.png")
    return tmp_path


def graph(**given: str) -> Brought:
    return Brought(model="linear.onnx", data=Path("images"), **given)


def test_one_line_from_nothing_to_a_package(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "linear.onnx", "--data", "images", "--normalization", "0..1", "--target", "rpi5"]
    assert run(["quantize", *asked, "--set", "threads=1", "--write-config", "sub.toml"]) == 0
    said = capsys.readouterr().err
    assert 'assumed: data.kind = "imagefolder" (what images looks like)' in said
    assert "assumed: data.height = 8 (what the model's input says)" in said
    assert "assumed: teacher.epochs = 0 (the network is finished)" in said
    assert "sub.toml written; dlx-deploy build -c sub.toml builds the same" in said
    assert (place / "dist" / "linear-0.1.0-rpi5.dlx").is_file()
    assert run(["build", "-c", "sub.toml"]) == 0
    assert "; 0 stages ran, " in capsys.readouterr().out
    assert run(["build", *asked, "--set", "threads=1"]) == 0
    assert "; 0 stages ran, " in capsys.readouterr().out


def test_an_onnx_becomes_a_package_without_torch(place: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from dlx_deploy.cli import run; sys.exit(run(sys.argv[1:]))"
    asked = ["--model", "linear.onnx", "--data", "images", "--normalization", "0..1", "--target", "rpi5"]
    line = [sys.executable, "-c", code, "quantize", *asked, "--jobs", "1", "--set", "threads=1"]
    done = subprocess.run(line, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "dist" / "linear-0.1.0-rpi5.dlx").is_file()


def test_the_file_means_the_same_from_another_folder(place: Path) -> None:
    meant = configured(None, graph(normalisation="-1..1", size="8x8"), ["seed=3", "gate.confidence=0.9"], ["rpi5"])
    (place / "sub").mkdir()
    path = place / "sub" / "deploy.toml"
    path.write_text(written(meant, path))
    assert 'path = "../images"' in path.read_text()
    read = load_config(path)
    assert Path(read.teacher.model).resolve() == place / "linear.onnx"
    assert (read.seed, read.gate.confidence, read.data.mean, read.targets) == (3, 0.9, (0.5,), ("rpi5",))
    theirs = load_work(path, None, None, place / ".dlx").builds[0].steps
    assert [step.params for step in theirs] == [
        step.params for step in load_work(meant.config, None, None, place / ".dlx").builds[0].steps
    ]


def test_set_comes_last(place: Path) -> None:
    meant = configured(None, graph(), ["data.height=9", "name=mine", "prune.enabled=false"], [])
    assert (meant.config.data.height, meant.config.name) == (9, "mine")
    assert 'name = "mine"' in written(meant, place / "deploy.toml")


def test_options_come_before_a_file(place: Path) -> None:
    (place / "deploy.toml").write_text(
        '[data]\nkind = "imagefolder"\npath = "elsewhere"\nheight = 4\n[gate]\nconfidence = 0.9\n'
    )
    meant = configured(Path("deploy.toml"), Brought(data=Path("images")), [], [])
    assert (meant.config.data.path, meant.config.data.height, meant.config.gate.confidence) == ("images", 4, 0.9)
    assert meant.config.teacher.epochs
    quantized = configured(Path("deploy.toml"), Brought(data=Path("images")), [], [], quantize=True).config
    assert (quantized.teacher.epochs, quantized.distill.enabled, quantized.prune.enabled) == (0, False, False)
    with pytest.raises(ConfigError, match="--write-config: writes what --model and --data mean"):
        written(meant, place / "other.toml")


def test_a_file_that_lies_here_is_not_read_beside_a_model(place: Path) -> None:
    (place / "deploy.toml").write_text("seed = 7\n")
    assert configured(None, graph(), [], []).config.seed == 0


def test_a_classes_file_is_the_order(place: Path) -> None:
    (place / "images" / "classes.txt").write_text("\n".join("9876543210"))
    meant = configured(None, graph(), [], [])
    assert meant.config.data.classes == "images/classes.txt"
    assert any("the classes in the order of that file" in text for text in meant.lines)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("timm:tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("a b/net.py:make", "net"),
        ("mobilenet_v3_small", "mobilenet_v3_small"),
    ],
)
def test_the_name_of_the_package(place: Path, model: str, name: str) -> None:
    Path("w.pt").touch()
    brought = Brought(model=model, checkpoint=Path("w.pt"), data=Path("images"), size="32")
    assert configured(None, brought, [], []).config.name == name


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        (Brought(data=Path("images")), r"--model is missing; without a configuration file"),
        (Brought(model="linear.onnx"), r"--data is missing; without a configuration file"),
        (
            Brought(model="reznet18", data=Path("images")),
            r"--model reznet18: no network has that name; nearest valid names: .*'resnet18'.*; others are timm:NAME",
        ),
        (
            Brought(model="resnet20", checkpoint=Path("none.pt"), data=Path("images")),
            r"--checkpoint none\.pt: there is no such file; correct the path",
        ),
        (
            Brought(model="resnet20", data=Path("images")),
            r"--model resnet20 has no weights; give --checkpoint FILE or --pretrained\. To train it",
        ),
        (
            Brought(model="net.py:make", data=Path("images")),
            r"--model net\.py:make does not say how large its images are; give --size, e\.g\. --size 224",
        ),
        (graph(size="8y"), r"--size '8y': must be pixels, for instance 224, or HEIGHTxWIDTH"),
        (graph(normalisation="half"), r"--normalization 'half': must be one of imagenet, 0\.\.1"),
        (Brought(model="any.onnx", data=Path("images")), r"any\.onnx takes images of any size; give --size"),
        (Brought(model="linear.onnx", data=Path("nodir")), r"nodir: no such folder or file"),
    ],
)
def test_what_is_not_said_is_asked_for(place: Path, brought: Brought, message: str) -> None:
    model = foreign_net()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    saved(place / "any.onnx", model)
    with pytest.raises((ConfigError, DataError), match=message):
        configured(None, brought, [], [], quantize=True)


def test_a_plan_and_its_reasons_take_the_same_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--model", "linear.onnx", "--data", "images", "--normalization", "0..1", "--target", "rpi5"]
    assert run(["plan", *line]) == 0
    shown = capsys.readouterr()
    assert "assumed: data.height = 8 (what the model's input says)" in shown.err
    assert [row.split()[:2] for row in shown.out.splitlines()[2:4]] == [["data", "run"], ["teacher", "run"]]
    assert run(["why", "teacher", *line]) == 0
    assert "teacher for rpi5: run: needs data, not built yet" in capsys.readouterr().out


def test_commands_that_build_and_plan_take_the_same_options() -> None:
    from dlx_deploy.commands.bringing import quantize
    from dlx_deploy.commands.builds import build, plan, why

    names = [one.name for one in fields(Given)]
    for command in (build, quantize, plan, why):
        assert list(inspect.signature(command).parameters)[: len(names)] == names


def test_the_likely_network_of_weights_is_offered_and_not_taken(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_model("resnet8", {"width": 0.5}, 10, ImageInput(3, 8, 8))
    torch.save(network.state_dict(), "weights.pt")
    line = ["--checkpoint", "weights.pt", "--data", "images"]
    assert run(["build", *line]) == 2
    assert (
        "--model is missing; without a configuration file (-c) give --model resnet8 --set teacher.arguments.width=0.5: "
        "every tensor of weights.pt fits resnet8 with width = 0.5 for 10 classes"
    ) in capsys.readouterr().err
    assert run(["plan", *line, "--set", "teacher.model=resnet8", "--size", "8"]) == 2  # a name by --set is one
    assert "images has no train folder" in capsys.readouterr().err
    torch.save({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, "other.pt")
    assert run(["quantize", "--checkpoint", "other.pt"]) == 2
    assert "give its code as FILE.py:FUNCTION: other.pt is of no registered network" in capsys.readouterr().err


def test_an_unknown_name_is_said_before_weights_are_asked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    for rest in ([], ["--pretrained"]):
        assert run(["quantize", "--model", "timm:resnett18", "--data", "images", *rest]) == 2
        assert "timm has no model 'resnett18'; it has resnet18, " in capsys.readouterr().err


def test_a_normalisation_that_nobody_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "net.py").write_text("def make(num_classes): ...\n")
    assert run(["quantize", "--model", "net.py:make", "--data", "images", "--size", "8", "--target", "rpi5"]) == 2
    assert "net.py:make: nobody says which normalisation it was trained with; give it by" in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.toml").write_text("seed = 1\n")
    assert run(["build", "--model", "linear.onnx", "--data", "images", "--write-config", "mine.toml"]) == 2
    assert "--write-config mine.toml: is there already; name another file, or replace it with --force" in (
        capsys.readouterr().err
    )
    assert run(["build", "--write-config", "other.toml"]) == 2
    assert "--write-config: writes what --model and --data mean without --config; a whole one" in (
        capsys.readouterr().err
    )
