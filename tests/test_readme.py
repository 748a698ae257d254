"""The README's commands, run in order in one folder, on the small build."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import tiny
from .warm import run_warm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


DLX = [sys.executable, "-m", "dlx_deploy.cli"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


COMMANDS = [line for block in blocks("bash") for line in block.strip().splitlines()]
SETUP = [c for c in COMMANDS if c.startswith("pip install")]


def small(command: str) -> list[str]:
    """The command as words: builds made small, budgets made wide, our own Python."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    else:
        words = [*DLX, *words[1:]]
    if command.startswith(("dlx-deploy build", "dlx-deploy plan", "dlx-deploy why")):
        words += tiny()
    if command.startswith("dlx-deploy verify"):
        words[words.index("--max-drop") + 1] = "0.9"
    return words


def test_every_command_works(built: Path, tmp_path: Path) -> None:
    """With a store that holds what its first build makes, as that of other tests is."""
    import numpy as np
    from PIL import Image

    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "digit.png")
    setup = SETUP[0].partition("&& ")[2]
    commands = [setup, *(c for c in COMMANDS if c not in SETUP)]
    assert len(commands) >= 14
    for command in commands:
        words = small(command)
        if words[:3] == DLX:
            done = run_warm(words[3:], tmp_path)
        else:
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    code = f"import numpy as np\nimages = np.zeros((2, 8, 8, 1), np.uint8)\n{blocks('python')[0]}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_ci_runs_the_readme_s_two_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert len(SETUP) == 2
    build, test = SETUP
    assert build.partition("&& ")[2] in ci
    install, run = test.split(" && ")
    assert 0 <= ci.index(f"\n{install}\nbegin_beside ") < ci.index(f"\n{run}\n")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("http") or (ROOT / link).exists()
