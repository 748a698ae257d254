"""A class for each pixel, through the whole pipeline: folders of masks and the built-in scenes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from dlx_deploy.runtime import load
from dlx_deploy.runtime.watching.reference import read_reference

from .conftest import TEACHER_ALONE, Here, dlx
from .masks import SHADES, mask_folder

TRAINED = ("teacher", "distill", "prune")
SMALL = [
    "name='masks'",
    "threads=1",
    "data.calibration_images=32",
    "training.batch_size=16",
    "training.optimizer=adamw",
    "training.learning_rate=0.01",
    "training.loss=cross-entropy+dice",
    "training.shift_px=1",
    "training.flip=true",
    "teacher.model=unet",
    "teacher.arguments={width=8,depth=1}",
    "teacher.epochs=8",
    "distill.model=unet",
    "distill.arguments={width=8,depth=1}",
    "distill.epochs=6",
    "prune.round_to=2",
    "prune.learning_rate=0.003",
    "prune.epochs=2",
    "verify.rounds=60",
    "compile.rounds=60",
    "gate.max_drop=0.2",
]


def options(*more: str) -> list[str]:
    return [part for override in (*SMALL, *more) for part in ("--set", override)]


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    for split, count in (("train", 120), ("test", 60)):
        mask_folder(folder, count, split)
    (folder / "classes.txt").write_text("ground\nred\nblue\n")
    return folder


@pytest.fixture(scope="session")
def built_masks(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built-masks")
    data = ["data.kind=maskfolder", f"data.path='{masks}'", "data.height=16"]
    done = dlx("build", "-t", "cpu-x86_64", "-t", "jetson", *options(*data, "quantize.precision=int8"), cwd=folder)
    assert done.code == 0, done.err + done.out
    return folder


def steps(folder: Path, target: str) -> dict[str, dict[str, Any]]:
    path = max((folder / ".dlx" / "builds").glob(f"*{target}*.json"))
    return {entry["step"]: entry for entry in json.loads(path.read_text())["steps"]}


def gates(folder: Path, target: str) -> list[dict[str, Any]]:
    """What the build of ``target`` was judged by."""
    path = package(folder, target).with_suffix(".manifest.json")
    gates: list[dict[str, Any]] = json.loads(path.read_text())["gates"]
    return gates


def package(folder: Path, target: str = "cpu-x86_64") -> Path:
    return folder / "dist" / f"masks-0.1.0-{target}.dlx"


def command(file: Path, *arguments: str | Path) -> Any:
    """A command of the package alone, as on a device, and what its ``--json`` says."""
    words = [sys.executable, "-I", str(file), *map(str, arguments), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_stage_serves_masks(built_masks: Path) -> None:
    made = steps(built_masks, "cpu-x86_64")
    assert "teacher-logits" not in made  # one for each pixel of each image is too much to keep
    assert made["teacher"]["metrics"]["validation_miou"] > 0.7
    assert made["prune"]["metrics"]["macs_removed"] > 0.15
    assert made["quantize"]["metrics"]["int8_layers"] >= 6
    found = made["verify"]["metrics"]
    assert found["teacher_miou"] > 0.7
    assert found["teacher_miou"] - found["quantized_miou"] < 0.15
    known = read_reference(load(package(built_masks)).package)
    assert known is not None
    assert {"input_contrast", "output_confidence", "output_share_1"} <= {one.name for one in known.features}
    shared = steps(built_masks, "jetson")
    assert {shared[name]["status"] for name in ("data", "teacher", "distill", "prune")} == {"cached"}


@pytest.mark.parametrize("target", ["cpu-x86_64", "jetson-orin-nano-8gb"])
def test_answers_stay_in_floating_point(built_masks: Path, target: str) -> None:
    """INT8 inside, logits float32; a class map of INT8 logits would have ties all over."""
    graph = onnx.load_from_string(load(package(built_masks, target), threads=1).package.model).graph
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)
    (output,) = graph.output
    assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    (last,) = [node for node in graph.node if output.name in node.output]
    assert last.op_type not in ("QuantizeLinear", "DequantizeLinear")


def test_a_device_verifies_what_the_build_saw(built_masks: Path, masks: Path) -> None:
    for target in ("cpu-x86_64", "jetson-orin-nano-8gb"):
        verdict = command(package(built_masks, target), "verify", "--data", masks)["verdict"]
        metrics = steps(built_masks, target.partition("-orin")[0])["verify"]["metrics"]
        assert (verdict["metric"], verdict["units"], verdict["verdict"]) == ("mIoU", 60, "pass")
        assert verdict["teacher"] == pytest.approx(metrics["teacher_miou"], abs=1e-9)
        assert verdict["package"] == pytest.approx(metrics["shipped_miou"], abs=1e-9)
        judged = [gate for gate in gates(built_masks, target) if gate["gate"] == "accuracy"]
        assert [verdict["upper"], verdict["drop"]] == [judged[0]["bound"], judged[0]["value"]]


def test_pictures_become_masks(built_masks: Path, tmp_path: Path) -> None:
    mask = np.zeros((48, 32), np.uint8)
    mask[12:36, 8:20] = 1
    Image.fromarray(SHADES[mask]).save(tmp_path / "red.png")
    (tmp_path / "out").mkdir()
    (row,) = command(package(built_masks), "predict", tmp_path / "red.png", "--out", tmp_path / "out")["predictions"]
    answer = np.asarray(Image.open(row["mask"]))
    assert answer.shape == mask.shape
    assert (answer == mask).mean() > 0.9
    overlay = np.asarray(Image.open(row["overlay"]))
    assert overlay.shape == (48, 32, 3)
    assert command(package(built_masks), "bench", "--rounds", "20")["latency"]["n"] == 20
    assert command(package(built_masks), "selftest")


def test_a_new_budget_is_judged_without_numpy(built_masks: Path, masks: Path, tmp_path: Path) -> None:
    shutil.copytree(built_masks, tmp_path, dirs_exist_ok=True)
    code = (
        "import sys; sys.modules['matplotlib'] = None  # of the report, which the new verdict is drawn into\n"
        "from dlx_deploy import cli; code = cli.run(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules))); sys.exit(code)"
    )
    data = ["data.kind=maskfolder", f"data.path='{masks}'", "data.height=16", "quantize.precision=int8"]
    given = options(*data, "gate.max_drop=0.001", "quantize.max_drop=0.2")  # as it was built
    words = [sys.executable, "-c", code, "build", "-t", "cpu-x86_64", *given]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "heavy: []" in done.stdout
    assert "error: verify: mIoU drop" in done.stderr
    assert done.returncode == 6, done.stderr


def test_scenes_build_as_they_are(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fast = [f"{section}.epochs=1" for section in TRAINED]
    small = ["data.kind=scenes", "data.limit_train=200", "data.limit_test=80", "gate.max_drop=0.9", *TEACHER_ALONE]
    done = here("build", "-t", "cpu-x86_64", *options(*small, *fast, "gate.allow_chance=true"), "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)["builds"][0]["results"] if "builds" in json.loads(done.out) else json.loads(done.out)
    assert "miou" in json.dumps(results)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.model=resnet20"], "model 'resnet20' gives classes, and the data ask for masks; set teacher.model"),
        (["distill.mixup=0.2"], r"distill\.mixup is 0\.2; it changes images and leaves their masks as they are"),
        (["teacher.loss=focal"], r"teacher\.loss is 'focal'; semantic-segmentation has: 'cross-entropy', 'cross-"),
        (["data.height=64"], r"data\.height is 64; the scenes are 32 x 32: leave it out"),
        (["data.ignore_index=0"], r"data\.ignore_index is 0; every pixel of the scenes counts: leave it out"),
        (["data.kind=digits", "data.ignore_index=0"], r"data\.ignore_index is 0, and data\.kind 'digits' has images"),
        (
            ["data.kind=maskfolder"],
            r"data\.path is ''; data\.kind 'maskfolder' needs the folder that holds train/images",
        ),
        (["teacher.arguments={width=8,depth=6}"], "images are 32 x 32, and depth 6 halves them so often"),
    ],
)
def test_what_is_refused_before_anything_runs(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here("build", "-t", "cpu-x86_64", *options("data.kind=scenes", *overrides))
    assert done.code == 2
    assert re.search(message, done.err), done.err


OWN = """
import numpy as np
RESAMPLES = 400

def seen(confusions, weights):
    share = confusions.diagonal(axis1=1, axis2=2).sum(axis=1) / confusions.sum(axis=(1, 2))
    return np.average(share, weights=weights)
"""
"""The mean over images of the share of pixels that are right."""


def test_the_gate_judges_by_a_function_of_the_users(
    built_masks: Path, masks: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the build alone: the package says who judged it, and ``debug`` asks for the function."""
    shutil.copytree(built_masks / ".dlx", tmp_path / ".dlx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    data = ["data.kind=maskfolder", f"data.path='{masks}'", "data.height=16", "quantize.precision=int8"]
    done = here("build", "-t", "jetson", "--json", *options(*data, "gate.metric=own.py:seen"))
    assert done.code == 0, done.err
    drop, chance = json.loads(done.out)[0]["gates"][:2]
    assert (drop["metric"], drop["verdict"]) == ("own.py:seen_drop", "pass")
    assert (chance["metric"], chance["verdict"]) == ("teacher_own.py:seen", "pass")
    made = steps(tmp_path, "jetson")
    assert {made[name]["status"] for name in ("data", "teacher", "distill", "prune")} == {"cached"}
    packed = str(package(tmp_path, "jetson-orin-nano-8gb"))
    verified = here("verify", packed, "--data", str(masks))
    assert verified.code == 2
    assert "judged by own.py:seen, a function of who built it, which packages do not carry" in verified.err
    given = json.loads(here("debug", packed, "--metric", "own.py:seen", "--layers", "0", "--json").out)
    assert given["score"] == pytest.approx(made["verify"]["metrics"]["shipped_own.py:seen"], abs=1e-6)
    without = json.loads(here("debug", packed, "--layers", "0", "--json").out)
    assert without["metric"] == "miou"
    assert "give the function: --metric FILE.py:FUNCTION" in without["notes"][0]
