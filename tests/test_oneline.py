"""A finished network in one line: what is assumed is said, can be written, and means the same when it is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dlx_deploy.building import load_work
from dlx_deploy.cli import run
from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError, DataError
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
