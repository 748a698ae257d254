"""A package's command as a board's Python is sent it, with a runtime that a test writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dlx_deploy.devices.sent import sent_source

RUNTIME = {
    "__init__": "",
    "errors": "class RuntimeFault(Exception):\n    exit_code = 2\n",
    "commands/__init__": "",
    "commands/main": """
from types import SimpleNamespace
def view_of(command, package):
    return SimpleNamespace(package=package, rows=(word for word in command))
""",
    "commands/prediction_views": """
from types import SimpleNamespace
def PredictionsView(package, rows):
    return SimpleNamespace(data={"rows": rows}, text=" ".join(rows), failure=None)
""",
}


def test_answers_that_come_over_time_are_waited_for(tmp_path: Path) -> None:
    for name, text in RUNTIME.items():
        path = tmp_path / "dlx_runtime" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    asked = {"package": "x.dlx", "command": ["a", "b"], "apart": False, "runtime": str(tmp_path)}
    code = f"{sent_source('running')}\nprint(json.dumps(main(json.loads(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert json.loads(done.stdout) == {"data": {"rows": ["a", "b"]}, "text": "a b", "failure": None}, done.stderr
