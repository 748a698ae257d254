"""Every kind of bad input: a clear error, the right exit code, nothing lost."""

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

import pytest

from .conftest import PACKAGE, TEACHER_ALONE, Here, image_folder, tiny


def folder_options(folder: Path, *more: str) -> list[str]:
    return tiny("data.kind=imagefolder", f"data.path={folder}", "data.height=8", "teacher.batch_size=8", *more)


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
        (["build", "--processes", "4097", *tiny()], 2, "--processes is 4097; this machine has "),
        (["build", *tiny("teacher.precision=fp16")], 4, "teacher.precision is 'fp16', and there is no GPU here"),
        (
            ["build", *tiny("teacher.schedule=cosine-restarts", "teacher.restart_epochs=9")],
            2,
            "teacher.restart_epochs is 9 and teacher.epochs is 3",
        ),
        (["build", *tiny("teacher.unfreeze_epochs=[5]")], 2, "teacher.unfreeze_epochs is [5] and teacher.epochs is 3"),
        (["build", *tiny("teacher.model=transformer")], 2, "model 'transformer' is for texts, and the data are images"),
        (["build", *tiny("teacher.sharding=shard")], 2, "teacher.sharding is 'shard', and there is one process"),
        (["build", *tiny("data.kind=text")], 2, "data.path is ''; data.kind 'text' needs the folder that holds train"),
        (["build", *tiny("data.tokenizer=byte")], 2, "tokenizer is 'byte'; rule: 'bytes', 'words' or the path"),
        (["build", *tiny("data.kind=text", "data.path=none")], 2, "data.path: none is not a folder or a .csv"),
        (["build", *tiny("quantize.activations=dynamic")], 2, "quantize.activations is 'dynamic', and this target's"),
        (
            ["build", *tiny("teacher.checkpoint=w.pt", "teacher.pretrained=DEFAULT")],
            2,
            "checkpoint is 'w.pt' and pretrained 'DEFAULT'; rule: one of them",
        ),
        (
            ["build", *tiny("teacher.checkpoint_key=ema")],
            2,
            "checkpoint_key is 'ema' and checkpoint is not set; rule: with it",
        ),
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
        image_folder(folder, {"c": 3}, split="test")

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
    folder = image_folder(tmp_path / "data", {"a": 12, "b": 12})
    broken(damage)(folder)
    done = here("build", *folder_options(folder, *more))
    assert (done.code, message in done.err) == (2, True), done.err


class Evil:
    """A pickle of this would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


def checkpoint(path: Path, kind: str) -> Path:
    import torch

    from dlx_deploy.nn.models.inputs import ImageInput
    from dlx_deploy.nn.models.registry import build_model

    model = build_model("resnet8", {"width": 1.0 if kind == "too wide" else 0.5}, 10, ImageInput(1, 8, 8))
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
    more = ["teacher.epochs=0", "distill.enabled=false", "prune.enabled=false", "gate.allow_chance=true"]
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
        done = here("build", "--store", small / ".dlx", *tiny(*TEACHER_ALONE))
        assert done.code == 5
        assert "No space left on device" in done.err
        assert "free s" in done.err
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert here("build", "--store", small / ".dlx", *tiny(*TEACHER_ALONE)).code == 0
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
