"""An ONNX file as people look at it: its ends, whether it can be the teacher, what its operators would do where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.report.table import format_bytes, format_table
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.targets import load_target
from dlx_deploy.targets.operators import Verdict, operator_table

__all__ = ["GraphView", "verdict_lines", "view_graph"]

_USUAL = ("jetson-orin-nano-8gb", "rpi5", "rtx")
"""One target for each kind of runtime, where none is named."""
_SHOWN = 5


class GraphView(msgspec.Struct, frozen=True, kw_only=True):
    """``ends``: inputs and outputs. ``usable``: why it cannot be the teacher; empty where it can, as far as shows.

    ``asked``: what the runtimes that are installed here say of it. ``date``: of the table behind ``verdicts``.
    """

    file: str
    size_bytes: int
    opset: int
    ir_version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unusable: str
    asked: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    date: str

    @property
    def data(self) -> GraphView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A line for each fact, and the table of operators."""
        head = [
            f"{self.file}: ONNX, {format_bytes(self.size_bytes)}, opset {self.opset}, file format {self.ir_version}",
            *(f"  reads {one}" for one in self.inputs),
            *(f"  gives {one}" for one in self.outputs),
            f"  cannot be built from: {self.unusable}" if self.unusable else "  can be built from: --model FILE",
            *(f"  {one}" for one in self.asked),
        ]
        return "\n".join([lines_of(head), *verdict_lines(self.verdicts)])


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A table of operators and what becomes of them on each target, and below it why; nothing of none."""
    if not verdicts:
        return []
    targets = {one.target: one.runtime for one in verdicts}
    found = {(one.operator, one.target): one for one in verdicts}
    names = list(dict.fromkeys(one.operator for one in verdicts))
    rows = []
    for name in names:
        here = [found[name, target] for target in targets]
        rows.append([name, str(here[0].count), *(one.verdict for one in here)])
    header = ["operator", "count", *(f"{target} ({runtime})" for target, runtime in targets.items())]
    why: dict[tuple[str, str], list[Verdict]] = {}
    for one in verdicts:
        if one.note:
            why.setdefault((one.verdict, one.note), []).append(one)
    below = [
        f"{_some([one.operator for one in those])}, {word}: {note} ({_some([one.target for one in those])})"
        for (word, note), those in why.items()
    ]
    told = f"as it came; builds put it at the target's opset, and ask again; table of {operator_table().date}"
    return [format_table(header, rows, right=(1,)), lines_of([*below, told])]


def _some(names: Sequence[str]) -> str:
    """Each of ``names`` once, the first few of many."""
    once = list(dict.fromkeys(names))
    return ", ".join(once[:_SHOWN]) + (f" and {len(once) - _SHOWN} more" if len(once) > _SHOWN else "")


def view_graph(path: Path, targets: Sequence[str]) -> GraphView:
    """What the ONNX model ``path`` is, and what it would meet on ``targets``; without any, on one of each kind.

    Raises:
        ConfigError: it cannot be read, is no ONNX model, or a target is unknown.
    """
    from dlx_deploy.graph.foreign.tokens import reads_tokens
    from dlx_deploy.graph.foreign.usable import external_files, refuse_unusable
    from dlx_deploy.graph.foreign.wire import read_facts
    from dlx_deploy.stages.support.operators import file_verdicts

    profiles = [load_target(name).profile for name in targets or _USUAL]
    facts, unusable = read_facts(path), ""
    try:
        refuse_unusable(facts, path, reads_tokens(facts.inputs))
        external_files(path)
    except ConfigError as e:
        unusable = str(e).removeprefix(f"{path}: ")
    return GraphView(
        file=str(path),
        size_bytes=path.stat().st_size,
        opset=facts.opset,
        ir_version=facts.ir,
        inputs=tuple(map(str, facts.inputs)),
        outputs=tuple(map(str, facts.outputs)),
        unusable=unusable,
        asked=() if unusable else tuple(_asked(path)),
        verdicts=tuple(file_verdicts(path, profiles)),
        date=operator_table().date,
    )


def _asked(path: Path) -> list[str]:
    """What ONNX Runtime and, where it is installed, TensorRT-RTX say of the file itself."""
    import onnxruntime

    from dlx_deploy.graph.foreign.adopt import load_original
    from dlx_deploy.runtime.backends.session import open_session
    from dlx_deploy.runtime.engine.api import load_api
    from dlx_deploy.runtime.errors import BackendMissing, PackageError

    model = load_original(path, None).SerializeToString()
    said = [f"ONNX Runtime {onnxruntime.__version__}, installed here: runs it"]
    try:
        open_session(model, exact_qdq=False)
    except PackageError as e:
        said = [f"ONNX Runtime, installed here: {e}"]
    try:
        api = load_api("tensorrt-rtx")
    except BackendMissing:
        return said
    refused = api.refused(model)
    return [*said, refused or f"TensorRT-RTX {api.version}, installed here: its parser reads it"]
