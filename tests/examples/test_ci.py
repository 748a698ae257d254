"""action.yml and the workflows of examples/ci: their shell steps, run in order as the servers do, from a clean folder.

Stand-ins: ``pip`` (nothing is installed), and what a server does itself (its own actions, the cache, the upload).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ..conftest import TINY

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the workflows are not parsed")

ROOT = Path(__file__).parents[2]
KINDS = ("action", "github", "gitlab")
ALLOWED = {"action": "true", "github": "1", "gitlab": "1"}


@dataclass(frozen=True)
class Step:
    """One shell step: its script, the variables that it declares, and whether it runs after a failure too."""

    name: str
    script: str
    env: dict[str, str]
    always: bool


def steps_of(kind: str) -> Iterator[Step]:
    if kind == "gitlab":
        job = load("examples/ci/gitlab-ci.yml")["package"]
        for script in (*job["before_script"], *job["script"]):
            yield Step(script, script, job["variables"], False)
        return
    if kind == "github":
        listed, inputs = load("examples/ci/github-workflow.yml")["jobs"]["build"]["steps"], {}
    else:
        action = load("action.yml")
        listed, inputs = action["runs"]["steps"], {name: one["default"] for name, one in action["inputs"].items()}
        inputs["target"] = "jetson"
    for one in listed:
        if "run" in one:
            env = {name: filled(str(value), inputs) for name, value in one.get("env", {}).items()}
            yield Step(one["name"], one["run"], env, one.get("if") == "always()")


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def filled(value: str, inputs: dict[str, str]) -> str:
    """``value`` with the expressions that an ``env`` may hold."""
    known = {"github.action_path": str(ROOT), **{f"inputs.{name}": text for name, text in inputs.items()}}
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda match: known[match[1]], value)


def run(kind: str, folder: Path, allow: bool = False) -> tuple[int, list[str]]:
    """The exit code of the first step that failed, and the names of the steps that ran."""
    tools = folder.parent / "bin"
    write_tool(tools / "pip", "exit 0")
    (folder / "tools").mkdir(exist_ok=True)
    (folder / "tools" / "dlx_deploy-0.1.0-py3-none-any.whl").touch()
    server = {"GITHUB_STEP_SUMMARY": str(folder / "step.md"), "GITHUB_OUTPUT": str(folder / "outputs")}
    server |= {"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    code, ran = 0, []
    for step in steps_of(kind):
        if code and not step.always:
            continue
        env = {**os.environ, **server, **step.env, **({"ALLOW_UNDECIDED": ALLOWED[kind]} if allow else {})}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.script]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)
        ran.append(step.name)
        code = code or done.returncode
    return code, ran


def write_tool(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clean = tmp_path / "work"
    clean.mkdir()
    return clean


def configure(folder: Path, *more: str) -> None:
    """A ``deploy.toml`` that means what the tiny build's options do."""
    lines = []
    for override in (*TINY, *more):
        key, _, value = override.partition("=")
        number = re.fullmatch(r"[0-9.]+", value)
        lines.append(f"{key} = {value.replace('=', ' = ') if number or value[0] == '{' else repr(value)}")
    (folder / "deploy.toml").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_built_judged_and_tested(kind: str, folder: Path, built: Path) -> None:
    shutil.copytree(built / ".dlx", folder / ".dlx")  # the cache of the last run
    configure(folder)
    code, ran = run(kind, folder)
    assert code == 0, ran
    assert len(list((folder / "dist").glob("*.dlx"))) == 1
    assert {one.tag for one in ET.parse(folder / "dist/verdicts.xml").iter()} >= {"testsuite", "testcase"}
    table = folder / ("dist/verdicts.md" if kind == "gitlab" else "step.md")
    assert "| ✅ pass |" in table.read_text()
    if kind == "action":
        assert (folder / "outputs").read_text() == "exit-code=0\n"


def test_a_regression_fails_the_job(folder: Path, built: Path) -> None:
    shutil.copytree(built / ".dlx", folder / ".dlx")
    configure(folder, "gate.min_accuracy=0.9999")
    code, _ = run("action", folder)
    assert code == 3
    assert not list((folder / "dist").glob("*.dlx"))
    assert list(ET.parse(folder / "dist/verdicts.xml").iter("failure"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "allow", "expected"), [(0, False, 0), (3, True, 3), (5, True, 5), (6, False, 6), (6, True, 0)]
)
def test_a_job_ends_as_the_gate_says(kind: str, folder: Path, code: int, allow: bool, expected: int) -> None:
    write_tool(folder.parent / "bin" / "dlx-deploy", f"if [ $1 = build ]; then exit {code}; fi")
    assert run(kind, folder, allow)[0] == expected


def test_the_action_reads_only_what_it_documents() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    action = yaml.safe_load(text)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(action["inputs"])
    assert all(one["description"] for one in action["inputs"].values())
    # A value of the caller's is never part of a script, where it would be run.
    assert not [one["name"] for one in action["runs"]["steps"] if "${{" in one.get("run", "")]
