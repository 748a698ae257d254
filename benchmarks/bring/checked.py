"""``dlx-deploy`` in this process, with the CPU seconds of what it checks written to a file; ``one_line.py`` runs it.

python checked.py SECONDS.json quantize --model …
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKS = {
    "rehearsal, before the data are read": ("dlx_deploy.pipeline.check", "rehearse_build"),
    "saved network built again": ("dlx_deploy.nn.weights.reload", "refuse_other_answers"),
    "preprocessing against the network's library": ("dlx_deploy.tasks.preprocessing", "preprocessing_parity"),
    "export: parity with torch and rows alone": ("dlx_deploy.nn.export.parity", "check_parity"),
    "convert: parity with the original and rows alone": ("dlx_deploy.nn.export.foreign", "check_adopted"),
    "package: how far rounding moves answers": ("dlx_deploy.graph.checks.spread", "spread"),
    "package: golden rows alone": ("dlx_deploy.graph.checks.rows", "refuse_dependent_rows"),
    "package: answers that travel along": ("dlx_deploy.stages.support.parity", "make_parity"),
}
OF_TORCH = ("dlx_deploy.nn.weights.reload", "dlx_deploy.nn.export.parity")
"""They import it, and an ONNX file is never brought to them."""
spent = dict.fromkeys(CHECKS, 0.0)
inside: list[str] = []


def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*given: Any, **named: Any) -> Any:
        if inside:
            return function(*given, **named)
        inside.append(label)
        began = time.process_time()
        try:
            return function(*given, **named)
        finally:
            spent[label] += time.process_time() - began
            inside.pop()

    return counted


def main() -> None:
    # Imported first: a check would else pay for libraries that the steps need as well.
    graph = any(part.endswith(".onnx") for part in sys.argv)
    checks = {label: where for label, where in CHECKS.items() if not (graph and where[0] in OF_TORCH)}
    found = {label: getattr(importlib.import_module(module), name) for label, (module, name) in checks.items()}
    for name in sys.argv[2].split(","):
        if name:
            importlib.import_module(name)
    importlib.import_module("dlx_deploy.pipeline.run")
    for label, function in found.items():
        counted = timed(label, function)
        for module in [module for name, module in sys.modules.items() if name.startswith("dlx_deploy")]:
            for name, value in list(vars(module).items()):
                if value is function:
                    setattr(module, name, counted)
    from dlx_deploy.cli import main as command

    try:
        sys.argv[1:], out = sys.argv[3:], Path(sys.argv[1])
        command()
    finally:
        out.write_text(json.dumps({label: round(seconds, 2) for label, seconds in spent.items()}))


if __name__ == "__main__":
    main()
