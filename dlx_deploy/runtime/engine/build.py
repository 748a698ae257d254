"""Building an engine from ONNX in a process of its own, and proving that it computes as the plan asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Tuple

from ..errors import EngineError
from ..filenames import MODEL, PLAN
from ..files import write_atomically
from ..records import record
from ..scratch import Scratch
from ..untyped import JsonTable
from .child import FAULTS, REPORT, REQUEST, TIMINGS
from .inspector import read_inspection
from .rtx_plan import read_rtx_plan
from .settings import BuildSettings
from .table import PrecisionTable, patterns, wider

__all__ = ["BuildProgress", "BuiltEngine", "build_engine"]

BuildProgress = Callable[[str, int, int], None]
"""Called with a phase, and how many of its steps are done."""

STOP_S = 5.0  # what a builder gets to stop after a signal, before it is killed
START = "import sys; sys.path[:] = {path!r}; from {module} import main; sys.exit(main({folder!r}))"
OUT_OF_MEMORY = (
    "most likely the memory ran out: lower workspace_mib, add swap on an NVMe disk (not zram), stop the desktop, "
    "or build with a smaller max_batch"
)


@record
class BuiltEngine:
    """A serialized engine, what its layers compute in, and what building it took.

    ``ignored``: settings that this TensorRT has no means for, as sentences. ``workspace_mib``: the limit used, 0: none.
    """

    plan: bytes
    table: PrecisionTable
    flavour: str
    version: str
    build_s: float
    peak_memory_mib: float
    workspace_mib: int
    warnings: Tuple[str, ...]
    ignored: Tuple[str, ...]


def build_engine(
    model: bytes,
    settings: BuildSettings,
    timing_cache: Optional[Path] = None,
    progress: BuildProgress = lambda phase, done, total: None,
) -> BuiltEngine:
    """The engine for the ONNX ``model``; ``timing_cache`` is read and, if TensorRT has one, written.

    Raises:
        BackendMissing: the TensorRT that ``settings`` name is not here.
        EngineError: the graph cannot be parsed or built, the builder died, or a layer came out in another precision
            than asked.
    """
    workspace_mib = _workspace_mib(settings.workspace_mib)
    with Scratch("dlx-engine") as folder:
        (folder / MODEL).write_bytes(model)
        request = {"settings": settings.to_dict(), "workspace_mib": workspace_mib}
        (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        if timing_cache is not None and timing_cache.exists():
            (folder / TIMINGS).write_bytes(timing_cache.read_bytes())
        report = _run_child(folder, progress)
        plan = (folder / PLAN).read_bytes()
        if timing_cache is not None:
            _keep(folder / TIMINGS, timing_cache)
    table = _table(plan, report["inspection"], settings.flavour)
    _prove(table, settings)
    return BuiltEngine(
        plan=plan,
        table=table,
        flavour=settings.flavour,
        version=report["version"],
        build_s=report["build_s"],
        peak_memory_mib=report["peak_memory_mib"],
        workspace_mib=workspace_mib,
        warnings=tuple(report["warnings"]),
        ignored=tuple(report["ignored"]),
    )


def _run_child(folder: Path, progress: BuildProgress) -> JsonTable:
    """What the builder reports; its last phase is named if it dies."""
    phase = "start"
    with open(folder / "log.txt", "wb") as log:
        child = subprocess.Popen(_command(folder), stdout=subprocess.PIPE, stderr=log, env=dict(os.environ))
        try:
            for line in child.stdout or ():
                phase, done, total = json.loads(line)
                progress(phase, done, total)
            code = child.wait()
        except BaseException:
            _stop(child)
            raise
    if code or not (folder / REPORT).exists():
        raise EngineError(_death(code, phase, (folder / "log.txt").read_text(encoding="utf-8", errors="replace")))
    report: JsonTable = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if "error" in report:
        raise FAULTS[report["kind"]](report["error"])
    return report


def _command(folder: Path) -> Tuple[str, ...]:
    """This very code in a new interpreter, from wherever it was imported, a zip included."""
    path = [os.path.abspath(entry) for entry in sys.path]
    module = f"{__name__.rpartition('.')[0]}.child"
    return (sys.executable, "-c", START.format(path=path, module=module, folder=str(folder)))


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _death(code: int, phase: str, log: str) -> str:
    tail = " | ".join(log.strip().splitlines()[-3:])
    said = f"; its last words: {tail}" if tail else ""
    if code >= 0:
        return f"the engine builder ended with exit code {code} in the phase {phase!r}{said}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    why = (
        OUT_OF_MEMORY
        if -code == signal.SIGKILL
        else (
            "TensorRT crashed on this graph; nothing of it is kept: simplify the layers named last, or use another "
            "TensorRT version"
        )
    )
    return f"the engine builder was ended by {name} in the phase {phase!r}: {why}{said}"


def _table(plan: bytes, inspection: Optional[str], flavour: str) -> PrecisionTable:
    if inspection is not None:
        return read_inspection(inspection)
    if flavour == "tensorrt-rtx":
        return read_rtx_plan(plan)
    raise EngineError("this TensorRT has no engine inspector, so the engine's precision cannot be proven")


def _prove(table: PrecisionTable, settings: BuildSettings) -> None:
    wrong = wider(table, _provable(table, settings.layers))
    if wrong:
        out = patterns(wrong)
        places = "; ".join(list(wrong.values())[:5])
        more = f" and {len(out) - 5} more" if len(out) > 5 else ""
        raise EngineError(
            f"the engine does not compute as the plan asks, in {len(wrong)} places: {places}; "
            f"leave these layers out of INT8 (quantize.exclude = {json.dumps(out[:5])}{more}), or use another TensorRT "
            "version"
        )


def _provable(table: PrecisionTable, asked: Mapping[str, str]) -> Dict[str, str]:
    """What can be held against the table: TensorRT's inspector is not known to say how weights are stored."""
    blind = table.source == "inspector"
    return {node: kind for node, kind in asked.items() if not (blind and kind == "int4")}


def _workspace_mib(wanted_mib: int) -> int:
    """At most half of the memory that is free now: a limit above it would let the builder be killed; 0: no limit."""
    free_mib = _available_mib()
    return min(wanted_mib, free_mib // 2) if wanted_mib and free_mib else wanted_mib


def _available_mib() -> int:
    """The system's free memory (a Jetson's GPU uses the same), 0 if it cannot be read."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            return next((int(line.split()[1]) // 1024 for line in f if line.startswith("MemAvailable:")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _keep(made: Path, kept: Path) -> None:
    """The new timing cache in place of the old, whole or not at all; where that is not possible only time is lost."""
    data = made.read_bytes() if made.exists() else b""
    if not data:
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, data)
    except OSError:
        return
