"""The command line: every command, every kind of bad input, the exit codes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy import __version__, cli
from dlx_deploy.errors import DlxError
from dlx_deploy.runtime.package import open_package

from .conftest import PACKAGE, Here, dlx, tiny


def images(folder: Path, classes: dict[str, int], side: int = 12, split: str = "train") -> Path:
    """An image folder: class → number of PNG files; a class is a brightness, so it can be learned."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, (name, count) in enumerate(classes.items()):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (side, side + 3, 3)) + 80 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i:03}.png")
    return folder


def folder_options(folder: Path, *more: str) -> list[str]:
    return tiny("data.kind=imagefolder", f"data.path={folder}", "data.height=8", "teacher.batch_size=8", *more)


# -- what works ------------------------------------------------------------------------------------------------------


def test_version_and_help(here: Here) -> None:
    assert here("--version").out.strip() == __version__
    shown = here("--help").out
    for command in ("init", "build", "plan", "status", "why", "verify", "run", "bench", "inspect", "targets", "gc"):
        assert f"  {command} " in shown or f" {command} " in shown


def test_init_writes_a_file_that_is_used(here: Here, tmp_path: Path) -> None:
    assert here("init").code == 0
    again = here("init")
    assert (again.code, "deploy.toml is there already" in again.err) == (2, True)
    assert here("init", "--force").code == 0
    text = (tmp_path / "deploy.toml").read_text()
    (tmp_path / "deploy.toml").write_text(text.replace('name = "digits"', 'name = "mine"'))
    why = here("why", "package", "--json")
    assert why.code == 0, why.err
    (tmp_path / "deploy.toml").write_text(text.replace("\nepochs", "\nepoch", 1))
    wrong = here("plan")
    assert (wrong.code, "nearest valid name: 'epochs'" in wrong.err) == (2, True)


def test_targets(here: Here) -> None:
    listed = json.loads(here("targets", "list", "--json").out)
    assert {"jetson-orin-nano-8gb", "rpi5", "cpu-x86_64"} <= {t["name"] for t in listed["targets"]}
    assert listed["aliases"]["jetson"]["target"] == "jetson-orin-nano-8gb"
    shown = here("targets", "show", "jetson")
    assert "jetson is an alias of jetson-orin-nano-8gb" in shown.out
    assert "roofline.int8_tops" in shown.out
    assert "jetson-orin-nano-8gb" in here("targets", "list").out


def test_the_alias_is_said(built: Path, here: Here) -> None:
    assert "jetson is an alias of jetson-orin-nano-8gb" in here("plan").err


def test_a_board_of_one_s_own(here: Here, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text('name = "robot-arm"\nextends = "jetson-orin-nx-16gb"\n')
    planned = here("plan", "--target", "./board.toml", "--json")
    assert planned.code == 0, planned.err
    assert {p["target"] for p in json.loads(planned.out)} == {"robot-arm"}
    (tmp_path / "board.toml").write_text('name = "robot-arm"\nextends = "jetson-orin-nx-16gb"\nopsett = 3\n')
    wrong = here("plan", "--target", "./board.toml")
    assert (wrong.code, "nearest valid name: 'opset'" in wrong.err) == (2, True)


def test_package_commands(built: Path, here: Here, tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    package = built / PACKAGE
    info = json.loads(here("inspect", package, "--json").out)
    assert (info["name"], info["target"]["kind"]) == ("digits", "tensorrt")
    largest = np.abs(open_package(package).golden_logits).max()
    assert info["golden"]["atol"] == pytest.approx(0.05 * largest)  # INT8: a value on the edge may round the other way
    assert "self-test passed" in here("inspect", package, "--selftest").out
    digit = load_digits().images[0]
    Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(tmp_path / "zero.png")
    predicted = json.loads(here("run", package, "zero.png", "--top", "3", "--json").out)
    assert [len(p["top"]) for p in predicted["predictions"]] == [3]
    bench = json.loads(here("bench", package, "--rounds", "40", "--json").out)
    assert bench["latency"]["n"] == 40
    assert here("bench", package, "--rounds", "40", "--max-p90-ms", "0.000001").code == 3


def test_verify_again_on_the_shipped_bytes(built: Path, here: Here) -> None:
    package = built / PACKAGE
    again = here("verify", package, "--data", "digits", "--json")
    assert again.code == 0, again.err
    manifest = json.loads(package.with_suffix(".manifest.json").read_text())
    gate = manifest["gates"][0]
    seen = json.loads(again.out)
    assert seen["verdict"]["drop"] == pytest.approx(gate["value"])
    assert seen["verdict"]["upper"] == pytest.approx(gate["bound"])
    strict = here("verify", package, "--data", "digits", "--max-drop", "0.0001")
    assert strict.code in (3, 6)  # a network of three epochs is not as good as its teacher to a hundredth of a point
    assert "error: " in strict.err


def test_image_folder_and_own_model_with_checkpoint(here: Here, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    images(tmp_path / "data", {"dark": 40, "light": 40})
    images(tmp_path / "data", {"dark": 30, "light": 30}, split="test")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    namespace: dict[str, Any] = {}
    exec((tmp_path / "net.py").read_text(), namespace)
    torch.manual_seed(0)
    save_file(namespace["make"](2).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "deploy.toml").write_text(
        'name = "light"\n[data]\nkind = "imagefolder"\npath = "data"\nheight = 8\n'
        '[teacher]\nmodel = "net.py:make"\ncheckpoint = "w.safetensors"\narguments = {}\n'
    )
    options = ["--set", "teacher.epochs=2", "--set", "teacher.batch_size=8", "--set", "distill.enabled=false"]
    options += ["--set", "prune.enabled=false", "--set", "gate.max_drop=0.9", "--set", "threads=1"]
    done = here("build", "--json", *options)
    assert done.code == 0, done.err
    package = Path(json.loads(done.out)[0]["package"])
    verified = here("verify", package, "--data", "data")
    assert verified.code == 0, verified.err
    assert here("build", *options).err.count("cached") >= 6
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text() + "\n# touched\n")
    plan = {p["step"]: p["why"] for p in json.loads(here("plan", "--json", *options).out)}
    assert plan["data"] == "cached"
    assert plan["teacher"].startswith("input source (")


# -- bad input: configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "--target", "jetsn"], 2, "jetson"),
        (["build", "--set", "distill.epoch=5"], 2, "nearest valid name: 'epochs'"),
        (["build", "--set", "distill.epochs=-5"], 2, "distill.epochs is -5; rule: Expected `int` >= 0"),
        (["build", "-c", "none.toml"], 2, "none.toml: no such file"),
        (["why", "distil"], 2, "no stage 'distil'; nearest valid name: 'distill'"),
        (["status"], 2, "no build in .dlx; start one with"),
        (["build", "--no-such-option"], 2, "No such option"),
        (["bild"], 2, "No such command"),
        (["build", *tiny("teacher.model=resnet2")], 2, "nearest valid name: 'resnet"),
        (["build", *tiny("teacher.model=net.py:make")], 2, "teacher: source net.py does not exist"),
        (["build", *tiny("teacher.checkpoint=w.pt")], 2, "teacher: checkpoint w.pt does not exist"),
        (
            ["build", *tiny("data.kind=imagefolder", "data.path=none", "data.height=8")],
            2,
            "data.path: none is not a folder",
        ),
        (["build", *tiny("data.kind=imagefolder")], 2, "data.path is ''"),
        (["build", "--target", "jetson-nano", *tiny("quantize.precision=int8")], 2, "quantize.precision is 'int8'"),
        (["build", *tiny("teacher.learning_rate=1e9", "teacher.clip_norm=0")], 5, "teacher: training diverged"),
        (["build", *tiny("prune.reduce_macs=0.99")], 5, "prune.reduce_macs is 0.99"),
        (["build", *tiny("quantize.exclude=['nothing*']")], 2, "nothing*"),
        (["build", *tiny("teacher.batch_size=5000")], 2, "images and batch_size is 5000"),
    ],
)
def test_bad_configuration(
    built: Path, tmp_path: Path, here: Here, arguments: list[str], code: int, message: str
) -> None:
    if "status" not in arguments:
        shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here(*arguments)
    assert (done.code, message in done.err) == (code, True), done.err
    assert not (tmp_path / "dist").exists()


def broken(kind: str) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        (folder / "train" / "a" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n truncated")

    def empty(folder: Path) -> None:
        for file in (folder / "train" / "b").iterdir():
            file.unlink()

    def one_class(folder: Path) -> None:
        shutil.rmtree(folder / "train" / "b")

    def other_class(folder: Path) -> None:
        images(folder, {"c": 3}, split="test")

    def no_train(folder: Path) -> None:
        (folder / "train").rename(folder / "pictures")

    return {
        "corrupt": corrupt,
        "empty": empty,
        "one class": one_class,
        "other class": other_class,
        "no train": no_train,
        "fine": lambda folder: None,
    }[kind]


@pytest.mark.parametrize(
    ("damage", "more", "message"),
    [
        ("corrupt", [], "000.png"),
        ("empty", [], "b"),
        ("one class", [], "one class"),
        ("other class", [], "'c'"),
        ("no train", [], "train"),
        ("fine", ["teacher.batch_size=64"], "batch_size is 64"),
        ("fine", ["data.height=0"], "data.height is 0"),
        ("fine", ["data.mean=[0.5,0.5]"], "mean"),
    ],
)
def test_bad_images(here: Here, tmp_path: Path, damage: str, more: list[str], message: str) -> None:
    folder = images(tmp_path / "data", {"a": 12, "b": 12})
    broken(damage)(folder)
    done = here("build", *folder_options(folder, *more))
    assert (done.code, message in done.err) == (2, True), done.err


class Evil:
    """A pickle of this would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


def checkpoint(path: Path, kind: str) -> Path:
    import torch

    from dlx_deploy.nn.models.registry import build_model

    model = build_model("resnet8", {"width": 1.0 if kind == "too wide" else 0.5}, 10, 1, 8, 8)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "torch pickle":
        torch.save({"state_dict": model.state_dict(), "hook": Evil()}, path)
    elif kind == "cut short":
        torch.save(model.state_dict(), path)
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("too wide", ["conv1.weight", "in the checkpoint and [8] in the model"]),
        ("pickle", ["w.pt"]),
        ("torch pickle", ["w.pt", "system"]),
        ("cut short", ["w.pt"]),
    ],
)
def test_bad_checkpoints(here: Here, tmp_path: Path, kind: str, messages: list[str]) -> None:
    path = checkpoint(tmp_path / "w.pt", kind)
    done = here("build", *tiny(f"teacher.checkpoint={path}"))
    assert done.code == 2
    for message in messages:
        assert message in done.err


def test_a_wrapped_checkpoint_is_taken_as_it_is(here: Here, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.pt", "wrapped")
    more = ["teacher.epochs=0", "distill.enabled=false", "prune.enabled=false", "gate.max_drop=0.99"]
    done = here("build", *tiny(f"teacher.checkpoint={path}", *more))
    assert done.code == 0, done.err


def test_a_model_whose_output_is_not_logits(here: Here, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(num_classes, in_channels):\n    return nn.Conv2d(in_channels, num_classes, 1)\n"
    )
    done = here("build", *tiny("teacher.model=net.py:make", "teacher.arguments={}"))
    assert (done.code, "[2, 10, 8, 8]" in done.err) == (2, True), done.err


# -- bad input: disks and packages -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_full_disk_loses_nothing(built: Path, here: Here, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=False)
    if mount.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        done = here("build", "--store", small / ".dlx", *tiny())
        assert done.code == 5
        assert "No space left on device" in done.err
        assert "free s" in done.err
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert here("build", "--store", small / ".dlx", *tiny()).code == 0
        manifest = json.loads(Path(PACKAGE).with_suffix(".manifest.json").read_text())
        assert manifest["steps"][0]["status"] == "cached"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a disk needs root on Linux")
def test_a_read_only_store(built: Path, here: Here, tmp_path: Path) -> None:
    store = tmp_path / ".dlx"
    shutil.copytree(built / ".dlx", store)
    if subprocess.run(["mount", "--bind", str(store), str(store)], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(store)], check=True)
        warm = here("build", *tiny())
        assert warm.code == 0, warm.err
        cold = here("build", *tiny("seed=1"))
        assert cold.code == 5
        assert "the file system is read-only; name another folder with --store" in cold.err
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)


def test_a_store_in_the_way_of_a_file(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = here("build", "--store", "file/.dlx", *tiny())
    assert (done.code, "name another folder with --store" in done.err) == (5, True), done.err


def spoil(data: bytes, kind: str) -> bytes:
    middle = len(data) // 2
    return {
        "truncated": data[:middle],
        "tampered": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "foreign": b"PK\x05\x06" + bytes(18),
        "no zip": b"hello",
    }[kind]


@pytest.mark.parametrize("kind", ["truncated", "tampered", "foreign", "no zip"])
@pytest.mark.parametrize("command", ["inspect", "run", "bench", "verify"])
def test_bad_packages(built: Path, here: Here, tmp_path: Path, command: str, kind: str) -> None:
    bad = tmp_path / "bad.dlx"
    bad.write_bytes(spoil((built / PACKAGE).read_bytes(), kind))
    more = {"run": ["x.png"], "verify": ["--data", "digits"]}.get(command, [])
    done = here(command, bad, *more)
    assert (done.code, "bad.dlx" in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", PACKAGE, "none.png"], "none.png"),
        (["run", "none.dlx", "x.png"], "none.dlx"),
        (["verify", PACKAGE, "--data", "none"], "none"),
    ],
)
def test_missing_files(built: Path, here: Here, arguments: list[str], message: str) -> None:
    arguments = [str(built / a) if a == PACKAGE else a for a in arguments]
    done = here(*arguments)
    assert (done.code, message in done.err) == (2, True), done.err


# -- the border ------------------------------------------------------------------------------------------------------


def test_our_bug_is_exit_1_with_a_traceback(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr("dlx_deploy.report.builds.describe_plan", explode)
    done = here("plan")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "this is a bug in dlx-deploy" in done.err


def test_interrupt_is_130(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlx_deploy.report.builds.describe_plan", interrupt)
    assert here("plan").code == 130


def test_json_keeps_talk_off_stdout(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = dlx("build", "--json", *tiny(), cwd=tmp_path)
    assert json.loads(done.out)[0]["cached"] == 11
    assert "alias" in done.err


def test_every_error_of_ours_has_an_exit_code() -> None:
    def leaves(kind: type[DlxError]) -> list[type[DlxError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    codes = {kind.__name__: kind.exit_code for kind in leaves(DlxError)}
    assert (codes["GateFailed"], codes["GateUndecided"]) == (3, 6)
    assert codes["ConfigError"] == codes["DataError"] == 2
    assert (codes["EnvironmentMissing"], codes["StageFailed"], codes["StoreError"]) == (4, 5, 5)
    assert cli._report(DlxError("x")) == 1
