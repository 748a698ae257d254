"""examples/text, made small: its configuration builds, and the package takes its README's text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ..conftest import dlx

EXAMPLE = Path(__file__).parents[2] / "examples" / "text"
SMALL = ["data.limit_train=240", "data.limit_test=90", "teacher.epochs=1", "distill.epochs=1", "prune.enabled=false"]
MORE = ["gate.max_drop=0.9", "gate.allow_chance=true", "verify.rounds=60", "compile.rounds=60"]


def test_the_example_builds_and_answers(tmp_path: Path) -> None:
    small = [part for override in (*SMALL, *MORE) for part in ("--set", override)]
    done = dlx("build", "-c", EXAMPLE / "deploy.toml", "--json", *small, cwd=tmp_path)
    assert done.code == 0, done.err
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    command = next(line for line in readme.splitlines() if line.startswith("python dist/"))
    assert 'predict "Fit the estimator to the training data." --top 2' in command
    package = tmp_path / command.split()[1]
    words = [sys.executable, "-I", str(package), "predict", "Fit the estimator.", "--top", "3", "--json"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    (row,) = json.loads(answer.stdout)["predictions"]
    assert {best["label"] for best in row["top"]} == {"numpy", "sklearn", "torch"}
