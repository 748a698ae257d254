"""Pythons of this machine, and environments that hold a package's runtime and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Absent", "find_python", "make_environment", "newest_python"]

NEWEST = (20, 11)
"""The minor versions of Python 3 that are looked for as the newest: from, down to."""
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/python/*/bin", "~/.local/bin", "~/.local/share/uv/python/*/bin")


class Absent(Exception):
    """Raised with the reason why an environment cannot be had here."""


def find_python(version: str) -> Path:
    """An interpreter of ``version`` ("3.8") that can make virtual environments.

    Raises:
        Absent: there is none on PATH, under pyenv, or where systems keep them.
    """
    name = f"python{version}"
    roots = [os.environ.get("PYENV_ROOT", "~/.pyenv")]
    folders = [
        *os.environ.get("PATH", "").split(os.pathsep),
        *FOLDERS,
        *(f"{r}/versions/{version}*/bin" for r in roots),
    ]
    for pattern in folders:
        start = Path(pattern).expanduser()
        for folder in sorted(Path(start.anchor).glob(str(start.relative_to(start.anchor)))) if start.anchor else []:
            if (folder / name).is_file() and _works(folder / name, version):
                return folder / name
    raise Absent(f"no {name} that can make virtual environments on this machine")


def newest_python() -> str:
    """The version of the newest interpreter here that the newest ONNX Runtime may have a wheel for.

    Raises:
        Absent: there is none.
    """
    first, last = NEWEST
    for minor in range(first, last - 1, -1):
        try:
            find_python(f"3.{minor}")
        except Absent:
            continue
        return f"3.{minor}"
    raise Absent(f"no Python 3.{last} or newer on this machine")


def make_environment(folder: Path, version: str, *requirements: str) -> Path:
    """The interpreter of a new virtual environment in ``folder`` with wheels of ``requirements`` and nothing else.

    Raises:
        Absent: the interpreter is not here, or pip finds no wheel (or no index).
    """
    bare = [find_python(version), "-m", "venv", "--without-pip", folder]
    subprocess.run(bare, check=True, capture_output=True, env=_clean())
    site = folder / "lib" / f"python{version}" / "site-packages"
    # This Python's pip chooses the other's wheels: faster than a pip there, and old ones may not reach today's indexes.
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", site]
    wheels = ["--python-version", version, "--only-binary", ":all:", *requirements]
    done = subprocess.run([*pip, *wheels], capture_output=True, text=True, check=False)
    if done.returncode:
        last = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip()[-200:])
        raise Absent(f"Python {version}: pip cannot install {' '.join(requirements)} ({last})")
    return folder / "bin" / "python"


def _works(python: Path, version: str) -> bool:
    """Whether it starts (a shim of pyenv may not) and can make environments."""
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=_clean(), check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def _clean() -> dict[str, str]:
    """This environment without what belongs to the Python that runs the tests."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV", "VIRTUAL_ENV"))}
