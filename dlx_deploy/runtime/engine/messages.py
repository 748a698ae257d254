"""What TensorRT says: its log, collected, and its parser's errors in words that name the node."""

from __future__ import annotations

from typing import Dict, List, Tuple

from ..untyped import Foreign

__all__ = ["logger_of", "parse_failure", "without_memory"]

MEMORY = ("out of memory", "outofmemory", "insufficient memory", "insufficient workspace", "cannot allocate", "oom")
REMEDY = (
    "; the memory ran out: lower workspace_mib or max_batch, add swap on an NVMe disk (it does not help the GPU's own "
    "allocations), stop the desktop"
)
KEPT = 200  # lines of the log
_LOGGERS: Dict[int, Foreign] = {}


def logger_of(module: Foreign) -> Foreign:
    """The logger of this process for ``module``: TensorRT keeps the first that it is given for good."""
    if id(module) not in _LOGGERS:
        _LOGGERS[id(module)] = _make_logger(module)
    return _LOGGERS[id(module)]


def _make_logger(module: Foreign) -> Foreign:
    severity = module.ILogger.Severity
    kept = {severity.INTERNAL_ERROR: "error", severity.ERROR: "error", severity.WARNING: "warning"}

    class Collector(module.ILogger):  # type: ignore[misc]
        """Keeps warnings and errors until they are taken."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self._lines: List[Tuple[str, str]] = []

        def log(self, level: Foreign, text: str) -> None:
            if level in kept and len(self._lines) < KEPT:
                self._lines.append((kept[level], text.strip()))

        def take(self) -> List[Tuple[str, str]]:
            """(kind, text) of each line since the last time, each text once."""
            lines, self._lines = list(dict.fromkeys(self._lines)), []
            return lines

    return Collector()


def parse_failure(parser: Foreign, builder: str, said: List[Tuple[str, str]]) -> str:
    """Which nodes the parser refuses, and why."""
    faults = [_parse_error(parser.get_error(i)) for i in range(parser.num_errors)]
    faults = list(dict.fromkeys(faults)) or [text for _, text in said[-3:]] or ["it gives no reason"]
    return (
        f"{builder} cannot parse the graph, in {len(faults)} places: {'; '.join(faults[:5])}; replace the operator, or "
        "export at an opset that this parser reads (export.opset)"
    )


def _parse_error(error: Foreign) -> str:
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node {name!r}" if name else f"node number {error.node()}"
    return f"{node}{f' ({operator})' if operator else ''}: {' '.join(str(error.desc()).split())}"


def without_memory(text: str) -> str:
    """The remedy if ``text`` tells of memory that ran out, else nothing."""
    return REMEDY if any(word in text.lower() for word in MEMORY) else ""
