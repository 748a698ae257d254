"""The supported range is said in one place, and everything else agrees with it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.backends import session as session_module
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.package.contents import MAIN
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.supported import MATRIX, ONNXRUNTIME, PYTHON, check_onnxruntime

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
OLDEST, NEWEST = (f"{major}.{minor}" for major, minor in ONNXRUNTIME)


@pytest.mark.parametrize("version", [OLDEST, f"{OLDEST}.0", f"{NEWEST}.7", "1.23.2", "1.30.0.dev20260101", "unknown"])
def test_what_is_supported_runs_without_a_word(version: str) -> None:
    assert check_onnxruntime(version) is None


@pytest.mark.parametrize("version", ["1.16.3", "1.9.0", "0.5.0"])
def test_an_older_onnxruntime_is_refused(version: str) -> None:
    rule = rf"onnxruntime {version} is older than 1\.17, the oldest .* pip install 'onnxruntime>=1\.17'"
    with pytest.raises(BackendMissing, match=rule) as e:
        check_onnxruntime(version)
    assert e.value.exit_code == 4


@pytest.mark.parametrize("version", ["1.33.0", "1.100.1", "2.0.0"])
def test_a_newer_onnxruntime_is_warned_of(version: str) -> None:
    assert f"onnxruntime {version} is newer than {NEWEST}, the newest" in (check_onnxruntime(version) or "")


def test_no_session_is_opened_on_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.16.3")
    with pytest.raises(BackendMissing, match=r"1\.16\.3 is older"):
        open_session(b"", exact_qdq=False)


def test_who_opens_a_package_hears_of_a_newer_one(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    Predictor(package, say=said.append)
    assert said == []
    monkeypatch.setattr("onnxruntime.__version__", "9.1.0")
    Predictor(package, say=said.append)
    assert [line.split(",")[0] for line in said] == [f"warning: onnxruntime 9.1.0 is newer than {NEWEST}"]
    assert session_module.version_warning() is not None


def test_the_packaging_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {"device": project["dependencies"], "build": project["optional-dependencies"]["build"]}
    lower = {k: _bound(requirements, "onnxruntime") for k, requirements in bounds.items()}
    assert lower["device"] == ONNXRUNTIME[0]
    assert ONNXRUNTIME[0] <= lower["build"] <= ONNXRUNTIME[1]


def test_a_package_refuses_an_older_python() -> None:
    assert f"sys.version_info < {PYTHON}".encode() in MAIN
    assert f"needs Python {PYTHON[0]}.{PYTHON[1]} or newer".encode() in MAIN


def test_the_documentation_agrees() -> None:
    text = " ".join((ROOT / "docs" / "package.md").read_text(encoding="utf-8").split())
    assert f"Python {PYTHON[0]}.{PYTHON[1]} or newer, numpy and onnxruntime {OLDEST} to {NEWEST}" in text
    named = re.search(r"on Python 3\.8 with (\S+) and (\S+), 3\.10 with (\S+), and the newest with (\S+)\.(?= )", text)
    assert named, "docs/package.md names the pairs of the matrix"
    assert named.groups() == tuple(onnxruntime for _, onnxruntime in MATRIX)


def test_the_matrix_covers_both_ends() -> None:
    versions = [tuple(map(int, onnxruntime.split("."))) for _, onnxruntime in MATRIX]
    pythons = [tuple(map(int, python.split("."))) for python, _ in MATRIX]
    assert (versions[0], versions[-1], pythons[0]) == (*ONNXRUNTIME, PYTHON)


def _bound(requirements: list[str], name: str) -> tuple[int, int]:
    bounds = [re.match(rf"{name}>=(\d+)\.(\d+)", requirement) for requirement in requirements]
    (match,) = (m for m in bounds if m)
    return int(match[1]), int(match[2])
