"""docs/adding-a-stage.md, followed to the letter: a stage in an installed package of its own."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Here

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-stage.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)


def block(language: str, text: str) -> str:
    """The one block of the page in ``language`` that holds ``text``."""
    (only,) = (body for kind, body in BLOCKS if kind == language and text in body)
    return str(only)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages that holds the page's, as an installer leaves it."""
    site = tmp_path / "site"
    metadata = site / "clip_stage-0.1.dist-info"
    metadata.mkdir(parents=True)
    (site / "clip_stage.py").write_text(block("python", "STAGE = Stage("))
    (site / "test_clip.py").write_text(block("python", "def test_"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: clip-stage\nVersion: 0.1\n")
    offered = tomllib.loads(block("toml", "entry-points"))["project"]["entry-points"]["dlx_deploy.stages"]
    lines = [f"{name} = {value}" for name, value in offered.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[dlx_deploy.stages]", *lines]))
    monkeypatch.syspath_prepend(site)
    yield site
    for name in ("clip_stage", "test_clip"):
        sys.modules.pop(name, None)


def test_the_stage_is_planned(installed: Path, here: Here) -> None:
    Path("deploy.toml").write_text(block("toml", "[stages.clip]"))
    done = here("why", "clip", "--json")
    assert done.code == 0, done.err
    planned = here("plan")
    steps = [line.split()[0] for line in planned.out.splitlines()[2:]]
    assert steps[steps.index("clip") - 1 : steps.index("clip") + 2] == ["export-pruned", "clip", "quantize"]
    assert here("plan", "--set", "stages.clip.sigmas=no").code == 2


def test_its_own_test_passes(installed: Path, tmp_path: Path) -> None:
    importlib.import_module("test_clip").test_what_is_far_out_is_clipped(tmp_path)
