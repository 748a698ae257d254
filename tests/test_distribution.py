"""What a source distribution carries: all that somebody needs to test and to learn from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
WANTED = ("tests", "docs", "examples", "benchmarks", "scripts")
MADE = (".git", ".dlx", "*.egg-info", "__pycache__", ".*_cache", "build", "dist", ".hypothesis")


def copied(to: Path) -> Path:
    """The project without what builds and tests leave behind: setuptools writes into the folder that it packs."""
    return Path(shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*MADE)))


def test_the_source_distribution_carries_tests_docs_and_examples(tmp_path: Path) -> None:
    project = copied(tmp_path / "project")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        str(path.relative_to(project))
        for room in (*WANTED, "dlx_deploy")
        for path in (project / room).rglob("*")
        if path.is_file()
    }
    assert len(expected) > 250
    assert expected - names == set()
    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".ci/run"} <= names
