"""A package's command on a board: in this process, by its own runtime or one that was put there; or in a fresh one."""

import json
import subprocess
import sys
from importlib import import_module
from typing import Any, Dict

__all__ = ["main"]


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """What the package says: ``data`` and ``text``, and the ``fault`` that a gate amounts to or that it ended with."""
    package, command = argument["package"], argument["command"]
    if argument["apart"]:
        return apart(package, command)
    sys.path.insert(0, argument["runtime"])
    commands, errors = import_module("dlx_runtime.commands.main"), import_module("dlx_runtime.errors")
    try:
        view = commands.view_of(command, package)
        rows = getattr(view, "rows", None)
        if rows is not None:  # answers that come over time are all waited for
            view = import_module("dlx_runtime.commands.prediction_views").PredictionsView(view.package, tuple(rows))
        data, text, failure = view.data, view.text, view.failure
    except errors.RuntimeFault as e:
        return {"fault": told(e)}
    return {"data": json.loads(json.dumps(data)), "text": text, "failure": told(failure) if failure else None}


def told(fault: Any) -> Dict[str, Any]:
    """An error of the runtime as plain values."""
    about = {name: getattr(fault, name) for name in ("what", "why") if hasattr(fault, name)}
    first = [str(one) for one in getattr(fault, "first", ())]
    return {**about, "first": first, "kind": type(fault).__name__, "said": str(fault), "exit_code": fault.exit_code}


def apart(package: str, command: Any) -> Dict[str, Any]:
    """The exit code of ``python PACKAGE COMMAND --json``, and what it printed."""
    argv = [sys.executable, package, *command, "--json"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return {"exit_code": done.returncode, "printed": done.stdout.decode("utf-8", "replace")}
