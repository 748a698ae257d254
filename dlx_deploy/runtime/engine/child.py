"""The process that builds one engine: a parser that crashes takes only this process with it.

``main`` reads ``request.json`` and ``model.onnx`` in a folder, and leaves ``engine.plan``, ``timing.cache`` and
``report.json`` there. Progress goes to the standard output as JSON lines, TensorRT's own talk to the standard error.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Dict

from ..errors import BackendMissing, EngineError, PackageError, RuntimeFault
from ..filenames import MODEL, PLAN
from .api import load_api
from .settings import BuildSettings

__all__ = ["FAULTS", "REPORT", "REQUEST", "TIMINGS", "main"]

REQUEST, REPORT, TIMINGS = "request.json", "report.json", "timing.cache"
"""In the folder that the parent and its builder share, beside the model and the plan."""

FAULTS = {kind.__name__: kind for kind in (BackendMissing, EngineError, PackageError)}
"""What a builder raises on purpose, by name: the parent raises it again."""


def main(folder: str) -> int:
    """Builds what ``folder`` asks for; 0 if ``report.json`` says how it went, an error or not."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # TensorRT and its plugins print where they like; the pipe carries progress alone
    where = Path(folder)

    def progress(phase: str, done: int, total: int) -> None:
        lines.write(json.dumps([phase, done, total]) + "\n")
        lines.flush()

    try:
        report = _build(where, progress)
    except RuntimeFault as e:
        report = {"error": str(e), "kind": type(e).__name__}
    (where / REPORT).write_text(json.dumps(report), encoding="utf-8")
    return 0


def _build(where: Path, progress: Callable[[str, int, int], None]) -> Dict[str, object]:
    request = json.loads((where / REQUEST).read_text(encoding="utf-8"))
    settings = BuildSettings.from_dict(request["settings"], "the build request")
    api = load_api(settings.flavour)
    cache = where / TIMINGS
    known = cache.read_bytes() if cache.exists() else b""
    started = time.monotonic()
    raw = api.build((where / MODEL).read_bytes(), settings, known, request["workspace_mib"], progress)
    (where / PLAN).write_bytes(raw.plan)
    cache.write_bytes(raw.timing_cache)
    report = {name: value for name, value in asdict(raw).items() if name not in ("plan", "timing_cache")}
    return {
        **report,
        "version": api.version,
        "build_s": time.monotonic() - started,
        "peak_memory_mib": _peak_memory_mib(),
    }


def _peak_memory_mib() -> float:
    """The largest resident size of this process, 0 if the system does not say; ``getrusage`` counts the parent in."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as f:
            return next((int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM:")), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0
