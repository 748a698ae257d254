"""Texts through the whole pipeline, on one process and on two."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.watching.reference import read_reference

from .conftest import TEACHER_ALONE, Here, dlx, made_once

WORDS = {"animal": ["cat", "dog", "owl", "fox", "hen", "cow"], "plant": ["oak", "fir", "ash", "elm", "fig", "yew"]}
TINY_TEXT = [
    "name='texts'",
    "threads=1",
    "data.kind=text",
    "data.vocabulary=320",
    "data.max_length=24",
    "data.test_fraction=0.25",
    "data.calibration_images=32",
    "teacher.model=transformer",
    "teacher.arguments={depth=2,width=32,heads=4,dropout=0.0}",
    "distill.model=efficient_transformer",
    "distill.arguments={depth=1,width=32,heads=4}",
    *(f"{s}.{kv}" for s in ("teacher", "distill", "prune") for kv in ("optimizer=adamw", "max_tokens=256", "epochs=3")),
    *(f"{s}.learning_rate=0.005" for s in ("teacher", "distill", "prune")),
    "prune.reduce_macs=0.3",
    "verify.rounds=40",
    "compile.rounds=40",
    "gate.max_drop=0.5",
]


def options(folder: Path, *more: str) -> list[str]:
    return [part for o in (*TINY_TEXT, f"data.path='{folder}'", *more) for part in ("--set", o)]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        lines = ["text,label"]
        for i in range(240):
            name = list(WORDS)[int(rng.integers(0, 2))]
            lines.append(f"{' '.join(rng.choice(WORDS[name], rng.integers(2, 8)))} {i},{name}")
        (folder / "train.csv").write_text("\n".join(lines) + "\n")

    return made_once(tmp_path_factory, "texts", make)


@pytest.fixture(scope="session")
def built_text(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages for two targets; read only."""

    def make(folder: Path) -> None:
        done = dlx("build", "-t", "cpu-x86_64", "-t", "jetson", *options(texts), cwd=folder)
        assert done.code == 0, done.err

    return made_once(tmp_path_factory, "built-text", make)


def manifest(folder: Path, target: str, which: Any = max) -> dict[str, dict]:
    """The steps of the newest build, or with ``min`` of the first: tests of any order build again."""
    path = which((folder / ".dlx" / "builds").glob(f"*{target}*.json"))
    return {entry["step"]: entry for entry in json.loads(path.read_text())["steps"]}


def test_texts_become_a_package_that_takes_text(built_text: Path) -> None:
    for target in ("cpu-x86_64", "jetson-orin-nano-8gb"):
        package = built_text / "dist" / f"texts-0.1.0-{target}.dlx"
        words = [sys.executable, "-I", str(package), "predict", "owl hen cow fox", "oak ash elm", "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        predictions = [row["top"][0]["label"] for row in json.loads(done.stdout)["predictions"]]
        assert predictions == ["animal", "plant"]
        assert dlx("inspect", package, "--selftest", cwd=built_text).code == 0
        known = read_reference(open_package(package))
        assert known is not None
        assert {"input_length", "input_token_mean", "output_class"} <= {one.name for one in known.features}


def test_the_same_stages_serve_texts(built_text: Path) -> None:
    steps = manifest(built_text, "cpu-x86_64")
    assert steps["teacher-logits"]["metrics"]["train_top1"] > 0.8
    assert steps["prune"]["metrics"]["macs_removed"] > 0.25
    assert steps["quantize"]["metrics"]["int8_layers"] >= 6
    assert steps["verify"]["metrics"]["teacher_top1"] > 0.8
    jetson = manifest(built_text, "jetson", min)
    assert jetson["quantize"]["metrics"]["int8_layers"] >= 7
    assert {jetson[s]["status"] for s in ("data", "teacher", "distill", "prune")} == {"cached"}
    assert {jetson[s]["status"] for s in ("export-teacher", "quantize")} == {"ran"}


def test_texts_are_verified_again(built_text: Path, texts: Path, tmp_path: Path, here: Here) -> None:
    package = built_text / "dist" / "texts-0.1.0-cpu-x86_64.dlx"
    data = Path(next(iter((built_text / ".dlx" / "store").glob("*/data"))))
    done = here("verify", package, "--data", data, "--max-drop", "0.5", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["accuracy"] > 0.8
    done = here("run", package, "cat " * 30)
    assert (done.code, "the model takes at most 24: shorten it" in done.err) == (2, True), done.err
    beside = here("verify", package, "--data", texts / "train.csv", "--max-drop", "0.5")
    assert beside.code == 0, beside.err
    assert re.search(r"passed over: 180 of 240 texts \(first: \S+train\.csv, line \d+, .*not judged", beside.out)
    told = here("verify", package, "--data", texts / "train.csv", "--max-drop", "0.5", "--json")
    assert json.loads(told.out)["passed_over"] == 180
    new = tmp_path / "new.csv"
    new.write_text("text,label\n" + "owl hen owl,animal\noak ash oak,plant\n")
    unseen = here("verify", package, "--data", new, "--max-drop", "0.99")
    assert unseen.code == 2
    assert f"2 of 2 texts (first: {new}, line 2, {new}, line 3) are not in the package's reference table" in unseen.err
    assert "--teacher model.onnx" in unseen.err
    assert unseen.err.endswith("the store .dlx does not hold it, name the build's: --store DIR\n")
    store = built_text / ".dlx"
    judged = here("verify", package, "--data", new, "--max-drop", "0.99", "--store", store, "--json")
    assert judged.code in (0, 6), judged.err
    assert json.loads(judged.out)["verdict"]["images"] == 2
    assert re.search(rf"teacher: {store}/store/\w+/model\.onnx, of the step 'export-teacher'", judged.err)


def test_warm_builds_find_everything(built_text: Path, texts: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(built_text, tmp_path / "copied")
    done = dlx("build", "-t", "jetson", *options(texts), "--json", cwd=copied)
    assert {entry["status"] for entry in manifest(copied, "jetson").values()} == {"cached"}, done.err


ALONE = [*TEACHER_ALONE, "compile.engine=off"]


def test_two_processes_build_what_one_does(built_text: Path, texts: Path, tmp_path: Path) -> None:
    done = dlx("build", "-t", "jetson", "--processes", "2", *options(texts, *ALONE), cwd=tmp_path)
    assert done.code == 0, done.err
    together, alone = manifest(tmp_path, "jetson")["teacher"], manifest(built_text, "cpu-x86_64")["teacher"]
    assert together["key"] == alone["key"]
    assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-3)
    kept = {path.parent.name for path in (tmp_path / ".dlx" / "store").glob("*/record.json")}
    assert kept == {entry["key"] for entry in manifest(tmp_path, "jetson").values()}
    assert not list((tmp_path / ".dlx").glob("*/.work-*"))


def test_a_failure_of_all_is_told_once(texts: Path, tmp_path: Path) -> None:
    more = ["teacher.optimizer=sgd", "teacher.learning_rate=1e12", "teacher.clip_norm=0"]
    done = dlx("build", "--processes", "2", *options(texts, *ALONE, *more), cwd=tmp_path, timeout_s=120)
    assert done.code == 5, done.err
    assert done.err.count("training diverged") == 1
    assert "Traceback" not in done.err


def test_a_worker_that_dies_is_named(texts: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dlx_deploy.cli", "build", "--processes", "2"]
    command += options(texts, *ALONE, "teacher.epochs=5000")
    main = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / ".dlx" / "checkpoints").glob("*/epoch-*.json")):
            assert time.monotonic() < deadline
            assert main.poll() is None
            time.sleep(0.2)
        (worker,) = [int(p) for p in children(main.pid) if "dlx_deploy.stages.support.team" in cmdline(p)]
        os.kill(worker, signal.SIGKILL)
        _, errors = main.communicate(timeout=60)
    finally:
        main.kill()
    assert main.returncode == 5, errors
    assert "error: teacher: a worker stopped; process 1: " in errors
    assert not list((tmp_path / ".dlx" / "store").glob("*/model"))


def test_a_launcher_starts_the_processes(texts: Path, tmp_path: Path) -> None:
    """What ``torchrun`` and ``accelerate launch`` do: every process runs the same command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "dlx_deploy.cli", "build", "-t", "jetson", *options(texts, *ALONE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is shipped") == 1
    assert len(list((tmp_path / ".dlx" / "builds").glob("*.json"))) == 1
    assert manifest(tmp_path, "jetson")["teacher"]["status"] == "ran"


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def cmdline(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
