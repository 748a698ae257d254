"""What boards are sent, on each Python that is here: an old one answers, or is told of in words."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from dlx_deploy.devices import sent
from dlx_deploy.devices.agent.sending import agent_source
from dlx_deploy.devices.ssh import openssh

from ..interpreters import Absent, find_python

DRIVER = """
import json, sys
folder, sources = json.loads(sys.stdin.read())
rooms = {}
for name, source in sources.items():
    rooms[name] = {"__name__": "dlx_deploy_there"}
    exec(compile(source, name, "exec"), rooms[name])
machine = rooms["machine"]["main"]({"files": {}})
facts = rooms["agent"]["main"]({"command": "facts", "path": folder, "clock_s": 1})
kept = rooms["keeping"]["main"]({"folder": folder, "names": [], "limit_bytes": 1})
print(json.dumps([sorted(rooms), machine["versions"]["python"], facts["ok"]["versions"]["python"], kept]))
"""


def sources() -> dict[str, str]:
    """Whatever a board's Python is given to read, by name."""
    rooms = {path.name[:-3]: path for path in files(sent).iterdir() if path.name.endswith(".py")}
    del rooms["__init__"]
    read = {name: sent.sent_source(name) for name in rooms}
    for name in ("there", "receiving"):
        read[name] = (openssh.HERE / f"{name}.py").read_text(encoding="utf-8")
    return {**read, "agent": agent_source()}


@pytest.mark.parametrize("version", [f"3.{minor}" for minor in range(6, 10)])
def test_each_source_is_read_by_old_pythons(version: str, tmp_path: Path) -> None:
    try:
        python = find_python(version)
    except Absent as e:
        pytest.skip(str(e))
    given = json.dumps([str(tmp_path), sources()])
    done = subprocess.run([python, "-I", "-c", DRIVER], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, machine, facts, kept = json.loads(done.stdout)
    assert set(names) >= {"agent", "keeping", "machine", "receiving", "running", "there", "timing"}
    assert machine.startswith(f"{version}.")
    assert facts == machine
    assert kept == {"removed": []}
