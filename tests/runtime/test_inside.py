"""The runtime inside a package, imported from it: ``sys.path.insert(0, "X.dlx")``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime import load
from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble, open_package


@pytest.fixture
def packages(tmp_path: Path, dlx: Path, data: Any, helpers: Any) -> Path:
    """A folder with two packages: ``cats.dlx`` is right, ``dogs.dlx`` says dog of what is a cat."""
    shutil.copy(dlx, tmp_path / "cats.dlx")
    write_archive(tmp_path / "dogs.dlx", assemble(helpers.tiny_contents(*data, model=helpers.tiny_model(shift=1))))
    return tmp_path


def python(folder: Path, script: str, **variables: str) -> tuple[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.stderr


ASK = "import numpy as np\nimage = np.zeros((6, 4, 3), np.uint8)\nimage[:2] = 200\n"


def test_the_package_that_is_imported_is_loaded(packages: Path) -> None:
    lines = "import sys\nsys.path.insert(0, 'cats.dlx')\nfrom dlx_runtime import load\n"
    out, err = python(packages, f"{lines}{ASK}print(load().predict(image).labels)")
    assert (out, err) == ("['cat']\n", "")
    lines = "from dlx_runtime import load\n"
    out, err = python(packages, f"{lines}{ASK}print(load().predict(image).labels)", PYTHONPATH="dogs.dlx")
    assert (out, err) == ("['dog']\n", "")


def test_of_two_packages_none_is_taken_for_the_other(packages: Path) -> None:
    """Python gives the second import the first one's runtime: ``load()`` would answer by the first one's model."""
    script = (
        "import sys\nsys.path.insert(0, 'cats.dlx')\nfrom dlx_runtime import load\ncats = load()\n"
        "sys.path.insert(0, 'dogs.dlx')\nfrom dlx_runtime import load\nfrom dlx_runtime.errors import InputError\n"
        f"{ASK}"
        "try:\n    load()\nexcept InputError as e:\n    print(e)\n"
        "print(cats.predict(image).labels, load('dogs.dlx').predict(image).labels, load('cats.dlx').package.digest != "
        "load('dogs.dlx').package.digest)"
    )
    out, err = python(packages, script)
    cats, dogs = (str(packages / name) for name in ("cats.dlx", "dogs.dlx"))
    said, answers = out.splitlines()
    assert said == (
        f"the runtime here was imported from {cats}, and sys.path holds {dogs} too; Python imports one of them: say "
        f"which package is meant: load({dogs!r})"
    )
    assert (answers, err) == ("['cat'] ['dog'] True", "")


def test_inspect_says_how_it_is_imported(packages: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'o\'dd "1".dlx'
    shutil.copy(packages / "dogs.dlx", odd)
    view = commands.inspect(open_package(odd), odd)
    (way_in,) = [line[len("python   ") :] for line in view.text.splitlines() if line.startswith("python")]
    out, err = python(packages, f"{way_in}\n{ASK}print(predictor.predict(image).labels)")
    assert (out, err) == ("['dog']\n", "")


def test_an_installed_runtime_is_in_no_package() -> None:
    with pytest.raises(InputError, match=r"load\(\) without a path is for the runtime inside a package; give the path"):
        load()
