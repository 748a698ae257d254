"""The options of a package's commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Callable, List, NoReturn, Optional, Sequence, Tuple

from ..backends.table import BACKENDS
from ..device_budgets import PERCENTILES
from ..terminal import show, talk
from ..words import line
from .trusting import add_trust_options

__all__ = ["ALIASES", "make_parser"]

ALIASES = {"run": "predict", "info": "inspect"}
"""Names that commands had, here or in dlx-deploy; they work and are not shown."""
DEVICE_BUDGETS = {
    "min_throughput": ("N", "budget: samples a second without a pause"),
    "throughput_batch": ("N", "so many at a time, for that"),
    "max_memory_mib": ("MIB", "budget of the peak of a process that runs it"),
    "max_size_mib": ("MIB", "budget of the package's file"),
    "max_energy_mj": ("MJ", "budget of an inference's energy beyond idle"),
    "max_cold_start_ms": ("MS", "budget of a fresh process's time to its first answer"),
}
"""Those that ``bench`` takes beside budgets of latency: unit and text of the option."""


def make_parser(archive_path: Optional[str], argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``argv``, as quickly made as can be: where a command comes first, of those alone that it holds.

    Of all others those that it holds know their options. ``archive_path``: the package that is run; ``None``: the first
    argument names it.
    """
    program = f"python {line(os.path.basename(archive_path))}" if archive_path else "python -m dlx_deploy.runtime"
    parser = _Parser(prog=program, description="Runs this inference package.")
    if archive_path is None:
        parser.add_argument("package", help="the .dlx file")
    parser.set_defaults(json=False)
    actions = parser.add_subparsers(dest="command", metavar="COMMAND")

    first = argv[0 if archive_path else 1 :][:1]
    begins = any(name in first for command, _, _ in COMMANDS for name in _names(command))
    for command, text, add_options in COMMANDS:
        for name in _names(command):
            if begins and name not in argv:
                continue
            one = _add_command(actions, name, text)
            if name in argv:
                add_options(one)
    return parser


def _verify_options(verify: argparse.ArgumentParser) -> None:
    _common_options(verify)
    verify.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="as training has it: a folder, texts as .csv or .jsonl, or arrays (.npz)",
    )
    verify.add_argument(
        "--max-drop", type=float, metavar="X", help="budget, 0.01 is one point (default: the package's)"
    )
    verify.add_argument(
        "--min-accuracy",
        type=float,
        metavar="X",
        help="floor, 0.9 is 90 percent (default: the package's, if it has one)",
    )
    verify.add_argument(
        "--max-flips",
        type=float,
        metavar="X",
        help="budget of answers that changed, 0.05 is 5 percent (default: the package's, if it has one)",
    )
    verify.add_argument(
        "--max-class-drop", type=float, metavar="X", help="budget of each class (default: the package's, if it has one)"
    )
    verify.add_argument(
        "--max-slice-drop", type=float, metavar="X", help="budget of each slice (default: the package's; 0: of none)"
    )
    verify.add_argument(
        "--slices", metavar="NAMES", help="columns whose values are slices: camera,light (default: the package's)"
    )
    verify.add_argument("--baseline", metavar="DLX", help="the package released before: is this one worse?")
    verify.add_argument(
        "--max-regression", type=float, metavar="X", help="budget against the baseline (default: as --max-drop)"
    )
    verify.add_argument("--confidence", type=float, metavar="X", help="for instance 0.95 (default: the package's)")
    verify.add_argument("--teacher", metavar="ONNX", help="answers for inputs that the package does not know")


def _names(command: str) -> List[str]:
    """What ``command`` may be called."""
    return [command, *(alias for alias, name in ALIASES.items() if name == command)]


def _add_command(actions: argparse._SubParsersAction[_Parser], name: str, text: str) -> argparse.ArgumentParser:
    described = f"{text.capitalize()}."
    if name in ALIASES:  # argparse lists what has a help
        return actions.add_parser(name, description=described)
    return actions.add_parser(name, description=described, help=text)


def _common_options(parser: argparse.ArgumentParser, session: bool = True) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_trust_options(parser)
    if session:
        parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: ONNX Runtime's choice (default)")
        parser.add_argument("--backend", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: the first here)")
        parser.add_argument(
            "--accept-hazards", action="store_true", help="use a backend that is known to compute this model wrong"
        )
        _build_options(parser)


def _predict_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser)
    inputs = "an image, a folder of them, a video, or a text; -: a line each on stdin"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=inputs)
    parser.add_argument("--file", metavar="FILE", help="inputs, a line each")
    parser.add_argument("--camera", metavar="CAMERA", help="0, /dev/video0, an address or a GStreamer pipeline")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame of a video or camera")
    parser.add_argument("--limit", type=int, metavar="N", help="end after N inputs or frames")
    parser.add_argument("--batch", type=int, metavar="N", help="inputs per run (default: 1 of a video or camera)")
    parser.add_argument("--jsonl", action="store_true", help="print JSON, a line for each input, as it comes")
    parser.add_argument("--drift", action="store_true", help="hold inputs and answers against those of the build")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="answers per input (default: 1)")
    parser.add_argument("--out", metavar="DIR", help="where files are written, if the answers are files")


def _selftest_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser)
    parser.add_argument("--data", metavar="PATH", help="the build's test split: hundreds of its answers compared too")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="files or texts to read in turn (default: arrays)")
    parser.add_argument("--rounds", type=int, metavar="N", help="timed runs (default: what the percentile needs)")
    parser.add_argument("--batch", default="1", metavar="N", help="inputs per run (default: 1), or several: 1,8,32")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="queries in flight (default: 1)")
    colds = "fresh processes, from start to first answer, and their memory (default: 0)"
    parser.add_argument("--cold-starts", type=int, default=0, metavar="N", help=colds)
    for p in PERCENTILES:
        whose = f"budget of p{p} (default: the package's, if it has one)"
        parser.add_argument(f"--max-p{p}-ms", type=float, metavar="MS", help=whose)
    for name, (unit, text) in DEVICE_BUDGETS.items():
        kind = int if name == "throughput_batch" else float
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=unit, help=f"{text} (default: the package's)"
        )
    least = "at least so long (default: 3 with a budget, but for --rounds)"
    parser.add_argument("--min-seconds", type=float, metavar="S", help=least)
    parser.add_argument("--max-seconds", type=float, default=60.0, metavar="S", help="and no longer (default: 60)")


def _engine_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser, session=False)
    _build_options(parser)


def _build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-build", action="store_true", help="refuse if an engine would have to be built")
    parser.add_argument("--cache", metavar="DIR", help="where engines are kept (default: the user's cache folder)")


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal, which the standard one asks by ``shutil``, slow to import, for each argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """What ``shutil.get_terminal_size`` says."""
    with contextlib.suppress(KeyError, ValueError):
        return int(os.environ["COLUMNS"]) or 80
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    return 80


class _Parser(argparse.ArgumentParser):
    """The standard parser, whose messages repeat what was typed, and the name of the package's file."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        return _Formatter(self.prog)

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2, the message on one line."""
        super().error(line(message))

    def _print_message(self, message: str, file: object = None) -> None:
        if message:
            (show if file is sys.stdout else talk)(message.rstrip("\n"))


def _serve_options(parser: argparse.ArgumentParser) -> None:
    from .serve_options import add_serve_options

    _common_options(parser)
    add_serve_options(parser)


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser, session=False)


COMMANDS: Tuple[Tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("predict", "say what the model makes of images, videos or texts", _predict_options),
    ("selftest", "compare the golden inputs' outputs with those of the builder", _selftest_options),
    ("bench", "measure the latency on this machine", _bench_options),
    ("verify", "compare with the teacher on labelled samples", _verify_options),
    ("serve", "answer requests over HTTP, by the KServe v2 inference protocol", _serve_options),
    ("engine", "build this machine's engine if need be, and describe it", _engine_options),
    ("inspect", "say what this package is", _inspect_options),
)
"""Each command in the order of the help: its name, what it does, and what gives its parser its options."""
