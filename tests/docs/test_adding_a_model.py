"""docs/adding-a-model.md, followed to the letter: a network in an installed package of its own."""

from __future__ import annotations

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

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-model.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)


def block(language: str, text: str) -> str:
    (only,) = (body for kind, body in BLOCKS if kind == language and text in body)
    return str(only)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages that holds the page's, as an installer leaves it."""
    site = tmp_path / "site"
    metadata = site / "tiny_nets-0.3.1.dist-info"
    metadata.mkdir(parents=True)
    (site / "tiny_nets.py").write_text(block("python", "def conv_net"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-nets\nVersion: 0.3.1\n")
    offered = tomllib.loads(block("toml", "entry-points"))["project"]["entry-points"]["dlx_deploy.models"]
    lines = [f"{name} = {value}" for name, value in offered.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[dlx_deploy.models]", *lines]))
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("tiny_nets", None)


def test_a_network_of_another_package_is_trained_and_exported(installed: Path, here: Here) -> None:
    Path("deploy.toml").write_text(block("toml", "[distill]"))
    few = ["--set", "data.limit_train=320", "--set", "data.limit_test=60", "--set", "gate.allow_chance=true"]
    built = here("build", "--target", "cpu-x86_64", *few, "--set", "gate.max_drop=0.9", "--json")
    assert built.code == 0, built.err
    why = here("why", "teacher", *few, "--json")
    assert '"tiny-nets": "0.3"' in why.out, why.out


def test_its_own_file_works_the_same(installed: Path, here: Here) -> None:
    Path("net.py").write_text(block("python", "def conv_net"))
    Path("deploy.toml").write_text(block("toml", "net.py:conv_net"))
    planned = here("plan")
    assert planned.code == 0, planned.err


def test_an_unknown_name_is_refused_and_a_wrong_argument_named(installed: Path, here: Here) -> None:
    unknown = here("plan", "--set", "teacher.model=tinny")
    assert unknown.code == 2
    assert "teacher.model is 'tinny', unknown" in unknown.err
    Path("deploy.toml").write_text(block("toml", "[distill]"))
    wrong = here("build", "--target", "cpu-x86_64", "--set", "teacher.arguments={ depth = 3 }")
    assert wrong.code == 2
    assert "tiny_nets:conv_net(" in wrong.err
    assert "raised TypeError" in wrong.err
