"""The chosen deploy.toml: the user's file with what differs set in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlx_deploy.config import load_config
from dlx_deploy.config.loading import plain_values
from dlx_deploy.search.chosen import chosen_text

FILE = """# mine
name = "shells"
targets = ["jetson", "boards/own.toml"]

[data]
kind = "imagefolder"
path = "photos"   # of last summer
height = 32

[training]
learning_rate = 0.03

[distill]
model = "resnet14"
arguments = { width = 0.5 }  # small
"""
DOTTED = 'name = "shells"\ndistill.arguments.width = 0.5\ndistill.model = "resnet14"\nprune.enabled = false\n'


@pytest.mark.parametrize("text", [FILE, DOTTED, ""], ids=["tables", "dotted", "empty"])
@pytest.mark.parametrize("folder", [".", "search", "../elsewhere"])
def test_it_means_the_same_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, folder: str
) -> None:
    here = tmp_path / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    source = Path("deploy.toml")
    source.write_text(text)
    given = ["training.weight_decay=1e-4", "distill.arguments.width=0.75", "prune.reduce_macs=0.4", "export.opset=17"]
    wanted = load_config(source, [*given, 'quantize.exclude=["conv1"]', "search.slack=0.1"])
    written = Path(folder) / "chosen.toml"
    written.parent.mkdir(exist_ok=True)
    made = chosen_text(source, wanted, written.parent.resolve(), "Chosen: trial 3\nof 4")
    written.write_text(made)
    assert plain_values(load_config(written), os.path.abspath) == plain_values(wanted, os.path.abspath)
    assert made.startswith("# Chosen: trial 3\n# of 4\n")
    for comment in ("# mine", "# of last summer", "# small"):
        assert (comment in made) == (comment in text)


def test_without_a_file_it_is_the_commented_one(tmp_path: Path) -> None:
    wanted = load_config(None, ["training.learning_rate=0.03", "distill.model=resnet14", "targets=['rpi5']"])
    path = tmp_path / "chosen.toml"
    path.write_text(chosen_text(None, wanted, tmp_path, "why"))
    assert load_config(path) == wanted
    assert "# what dlx-deploy search tries" in path.read_text()
