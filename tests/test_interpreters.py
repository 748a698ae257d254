"""Finding other Pythons: what is not there is said, a shim that does not start is passed over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import interpreters
from .interpreters import Absent, find_python, make_environment, newest_python

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_python_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim, real = tmp_path / "shims", tmp_path / "real"
    shim.mkdir()
    real.mkdir()
    (shim / f"python{HERE}").write_text("#!/bin/sh\nexit 127\n")
    (shim / f"python{HERE}").chmod(0o755)
    (real / f"python{HERE}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{shim}:{real}")
    assert find_python(HERE) == real / f"python{HERE}"


def test_a_python_of_pyenv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "versions" / f"{HERE}.1" / "bin"
    folder.mkdir(parents=True)
    (folder / f"python{HERE}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(interpreters, "FOLDERS", ())
    assert find_python(HERE) == folder / f"python{HERE}"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"no python3\.1 that can make virtual environments on this machine"):
        find_python("3.1")
    with pytest.raises(Absent, match=r"no python3\.1 "):
        make_environment(tmp_path / "venv", "3.1", "numpy")


def test_the_newest_is_at_least_this_one() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("the newest ONNX Runtime has no wheel for this Python")
    assert int(newest_python().partition(".")[2]) >= sys.version_info.minor
