"""examples/segmentation, made small: its configuration builds, and its README's commands and tables hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dlx_deploy.config import load_config
from dlx_deploy.nn.data.scenes import load_scenes
from dlx_deploy.nn.models.names import check_name

from ..conftest import dlx

EXAMPLE = Path(__file__).parents[2] / "examples" / "segmentation"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
SMALL = ["data.limit_train=240", "data.limit_test=80", "teacher.epochs=2", "distill.epochs=2", "prune.enabled=false"]
MORE = ["gate.max_drop=0.9", "gate.allow_chance=true", "verify.rounds=60", "compile.rounds=60"]


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_builds_and_answers(tmp_path: Path) -> None:
    small = [part for override in (*SMALL, *MORE) for part in ("--set", override)]
    built = dlx("build", "-c", EXAMPLE / "deploy.toml", *small, cwd=tmp_path)
    assert built.code == 0, built.err
    commands = [
        line.partition("#")[0].split() for line in README.splitlines() if re.match(r"(python|dlx-deploy) ", line)
    ]
    images, _ = load_scenes()
    Image.fromarray(images[0]).resize((90, 60)).save(tmp_path / "photo.png")
    (tmp_path / "masks").mkdir()
    ran = []
    for program, *words in commands:
        if words[0] != "build":
            ran.append(words)
            run([*(["-m", "dlx_deploy.cli"] if program == "dlx-deploy" else ["-I"]), *words], tmp_path)
    assert [next(w for w in words if w in ("verify", "predict", "bench")) for words in ran] == [
        "verify", "predict", "bench",
    ]  # fmt: skip
    mask = Image.open(tmp_path / "masks" / "photo.mask.png")
    assert (mask.mode, mask.size) == ("P", (90, 60))
    assert np.asarray(mask).max() <= 10
    assert Image.open(tmp_path / "masks" / "photo.overlay.png").size == (90, 60)


def test_what_the_readme_says_of_ones_own_data_can_be_read(tmp_path: Path) -> None:
    (table,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "deploy.toml"
    path.write_text(table)
    config = load_config(path)
    assert (config.data.kind, config.data.ignore_index, config.data.height, config.data.width) == (
        "maskfolder", 255, 384, 512,
    )  # fmt: skip
    for section in (config.teacher, config.distill):
        check_name("teacher", section.model, "images", "masks", {})
    assert config.data.path.endswith("street")
