"""docs/adding-a-model.md, followed to the letter: a network in an installed package of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Here
from .pages import block, installed_package

PAGE = "adding-a-model.md"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    with installed_package("tiny-nets", "0.3.1", PAGE, {"tiny_nets": "def conv_net"}, tmp_path / "site") as site:
        yield site


def test_a_network_of_another_package_is_trained_and_exported(installed: Path, here: Here) -> None:
    Path("deploy.toml").write_text(block(PAGE, "toml", "[distill]"))
    few = ["--set", "data.limit_train=320", "--set", "data.limit_test=60", "--set", "gate.allow_chance=true"]
    built = here("build", "--target", "cpu-x86_64", *few, "--set", "gate.max_drop=0.9", "--json")
    assert built.code == 0, built.err
    why = here("why", "teacher", *few, "--json")
    assert '"tiny-nets": "0.3"' in why.out, why.out


def test_its_own_file_works_the_same(installed: Path, here: Here) -> None:
    Path("net.py").write_text(block(PAGE, "python", "def conv_net"))
    Path("deploy.toml").write_text(block(PAGE, "toml", "net.py:conv_net"))
    planned = here("plan")
    assert planned.code == 0, planned.err


def test_an_unknown_name_is_refused_and_a_wrong_argument_named(installed: Path, here: Here) -> None:
    unknown = here("plan", "--set", "teacher.model=tinny")
    assert unknown.code == 2
    assert "teacher.model is 'tinny', unknown" in unknown.err
    Path("deploy.toml").write_text(block(PAGE, "toml", "[distill]"))
    wrong = here("build", "--target", "cpu-x86_64", "--set", "teacher.arguments={ depth = 3 }")
    assert wrong.code == 2
    assert "tiny_nets:conv_net(" in wrong.err
    assert "raised TypeError" in wrong.err
