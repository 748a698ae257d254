"""docs/adding-a-stage.md, followed to the letter: a stage in an installed package of its own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Here
from .pages import block, installed_package

PAGE = "adding-a-stage.md"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    modules = {"clip_stage": "STAGE = Stage(", "test_clip": "def test_"}
    with installed_package("clip-stage", "0.1", PAGE, modules, tmp_path / "site") as site:
        yield site


def test_the_stage_is_planned(installed: Path, here: Here) -> None:
    Path("deploy.toml").write_text(block(PAGE, "toml", "[stages.clip]"))
    done = here("why", "clip", "--json")
    assert done.code == 0, done.err
    planned = here("plan")
    steps = [line.split()[0] for line in planned.out.splitlines()[2:]]
    assert steps[steps.index("clip") - 1 : steps.index("clip") + 2] == ["export-pruned", "clip", "quantize"]
    assert here("plan", "--set", "stages.clip.sigmas=no").code == 2


def test_its_own_test_passes(installed: Path, tmp_path: Path) -> None:
    importlib.import_module("test_clip").test_what_is_far_out_is_clipped(tmp_path)
