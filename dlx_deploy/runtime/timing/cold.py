"""Cold starts: from the start of a process to its first answer, in fresh processes, and the memory that these took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from statistics import median
from typing import List, Optional, Tuple

from ..backends.table import BackendOptions
from ..errors import BackendMissing, RuntimeFault
from ..records import record
from ..telling import Tell, silent
from ..words import line
from .limits import Bounded, judge_at_most
from .verdicts import Judged

__all__ = ["JUDGED_STARTS", "ColdStart", "cold_starts", "judge_cold_start", "main"]

START = "import sys; sys.path[:] = {path!r}; from {module} import main; main({options!r})"
PATIENCE_S = 600.0
JUDGED_STARTS = 5
"""The fastest and the slowest of so many bound their median at 96.9 %."""


@record
class ColdStart:
    """Milliseconds from starting Python to the first answer, in the order measured, the slowest, and the most memory.

    Files were in the system's cache but for the first time; ``peak_mib``: the largest resident size of a process,
    ``None`` if the system does not say.
    """

    ms: Tuple[float, ...]
    p50_ms: float
    slowest_ms: float
    peak_mib: Optional[float]


def cold_starts(path: str, digest: str, options: BackendOptions, count: int, tell: Tell = silent) -> ColdStart:
    """``count`` processes one after the other, each of which opens the package at ``path`` and answers once.

    ``digest``: the package's, as it was when it was opened here, its signature checked; another is refused.

    Raises:
        BackendMissing: a process ended without an answer; what it said is in the message.
    """
    given = json.dumps({"path": os.path.abspath(path), "digest": digest, **asdict(options)})
    paths = [os.path.abspath(entry) for entry in sys.path]
    code = START.format(path=paths, module=__name__, options=given)
    ms: List[float] = []
    peaks: List[float] = []
    for i in range(count):
        tell(i, count, "cold starts")
        took_ms, peak = _first_answer(code)
        ms.append(took_ms)
        peaks += [peak] if peak else []
    return ColdStart(tuple(ms), median(ms), max(ms), max(peaks, default=None))


def judge_cold_start(seen: Optional[ColdStart], limit_ms: float) -> Judged:
    """Whether the median cold start is within its budget: by the slowest it is, by the fastest it is not."""
    metric, remedy = "cold_start_ms", "measure on a quieter machine"
    if seen is None:
        text = f"cold starts are not measured: the package is no file here; budget {limit_ms:g} ms: undecided"
        return Judged(metric, None, None, limit_ms, "undecided", text)
    bounded = len(seen.ms) >= JUDGED_STARTS
    lower, upper = (min(seen.ms), seen.slowest_ms) if bounded else (None, None)
    what = f"the median of {len(seen.ms)} cold starts is"
    return judge_at_most(metric, what, Bounded(seen.p50_ms, lower, upper, "ms"), limit_ms, remedy)


def _first_answer(code: str) -> Tuple[float, Optional[float]]:
    """How long a process took, and its peak."""
    start = time.perf_counter_ns()
    # Into a file, as nobody reads a pipe meanwhile: what a library says may be longer than one holds.
    with tempfile.TemporaryFile() as told:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=told) as child:
            patience = threading.Timer(PATIENCE_S, child.kill)
            patience.start()
            try:
                answer = child.stdout.readline() if child.stdout else b""
                took_ms = (time.perf_counter_ns() - start) / 1e6
                child.wait()
            finally:
                patience.cancel()
        told.seek(0)
        said = told.read()
    try:
        peak = json.loads(answer)["peak_mib"]
    except (ValueError, KeyError, TypeError) as e:
        last = line(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        raise BackendMissing(f"a fresh process gave no answer, exit code {child.returncode}: {last}") from e
    return took_ms, peak


def main(options: str) -> None:
    """In the fresh process: opens the package, answers once, says so on a line, with the memory that it took."""
    from ..package.archive import parse_archive, read_bytes
    from ..package.contents import parse_package
    from ..predictor import Predictor
    from ..tasks.arrays import rows_of

    given = json.loads(options)
    path, digest = given.pop("path"), given.pop("digest")
    # Whom it is from was asked where it was opened first: these must be the same bytes.
    package = parse_package(parse_archive(read_bytes(path), path), path)
    if package.digest != digest:
        sys.exit(f"{line(path)} has become another package while it was measured")
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries print where they like; the pipe carries the answer alone
    try:
        predictor = Predictor(package, BackendOptions(**given), lambda text: None)
        feeds = rows_of(package.golden_inputs, slice(0, 1))
        predictor.predict(next(iter(feeds.values())) if len(feeds) == 1 else feeds)
    except RuntimeFault as e:
        sys.exit(line(str(e)))
    os.write(answers, (json.dumps({"peak_mib": _peak_mib()}) + "\n").encode("ascii"))


def _peak_mib() -> Optional[float]:
    """The largest resident size of this process; ``getrusage`` would count the parent in."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as f:
            return next((int(entry.split()[1]) / 1024 for entry in f if entry.startswith("VmHWM:")), None)
    except (OSError, ValueError, IndexError):
        return None
