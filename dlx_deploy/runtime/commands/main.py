"""The command line of a package: ``python X.dlx predict cat.jpg``. The only module that prints."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from dataclasses import fields
from typing import List, NoReturn, Optional, Sequence, Tuple

from ..backends.table import BACKENDS, BackendOptions
from ..device_budgets import LIMITS
from ..errors import BackendMissing, InputError, RuntimeFault
from ..package.archive import to_json
from ..package.contents import Package, open_package
from ..package.trust import Trust
from ..predictor import Predictor
from ..signals import INTERRUPTED, Terminated, interruptible
from ..tasks.task import PredictOptions
from ..terminal import ready, show, show_each, talk
from ..timing.latency import PERCENTILES
from ..views import CommandView, Outcome
from ..words import line
from . import actions as commands
from .bench import BenchOptions
from .predicting import PredictRequest, predict_asked
from .trusting import add_trust_options, asked_trust
from .views import StreamView

__all__ = ["main", "view_of"]

MAX_STREAMS = 256
MAX_BATCHES_TEXT = 200
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


def main(argv: Sequence[str], archive_path: Optional[str] = None) -> int:
    """Runs a command on the package at ``archive_path`` (``None``: named by the first argument); gives the exit code.

    Results go to stdout, talk to stderr. 0 done, 2 unusable input or package, 3 a budget missed, 4 a library missing,
    5 the self-test failed, 6 undecided, 7 no engine that may be used, 130 interrupted, 143 by SIGTERM, 1 a bug.
    """
    ready()
    try:
        arguments = _parser(archive_path).parse_args(argv)
        with interruptible():
            trust = asked_trust(arguments, archive_path is not None)
            view = _run(arguments, archive_path or arguments.package, trust)
            if isinstance(view, StreamView) and (arguments.jsonl or not arguments.json):
                show_each(view.lines())
                return 0
        if arguments.command is None:
            view = Outcome(view.data, f"{view.text}\n\n{_parser(archive_path).format_help().rstrip()}")
        failure = view.failure
        show(to_json(view.data).decode("utf-8").rstrip("\n") if arguments.json else view.text)
    except RuntimeFault as e:
        return _fail(e)
    except Terminated as e:
        talk(f"interrupted by {e}")
        return e.exit_code
    except MemoryError:
        return _fail(BackendMissing("this machine has not enough memory for that; give fewer or smaller inputs"))
    except Exception:
        talk(traceback.format_exc().rstrip())
        talk("error: this is a bug in dlx-deploy; please report it with the lines above")
        return 1
    except KeyboardInterrupt:
        talk("interrupted")
        return INTERRUPTED
    return _fail(failure) if failure else 0


def view_of(command: Sequence[str], package: str) -> CommandView:
    """What ``command``, as it would stand behind ``python PACKAGE``, gives; nothing is printed but talk.

    Raises:
        RuntimeFault: it cannot be done, or is no command.
    """
    try:
        arguments = _parser(package).parse_args(command)
    except SystemExit as e:  # argparse has said why
        raise InputError(f"{line(' '.join(command))!r} is no command that a package has; see: {package} --help") from e
    return _run(arguments, package, asked_trust(arguments, inside=False))


def _run(arguments: argparse.Namespace, path: str, trust: Optional[Trust]) -> CommandView:
    package = open_package(path, trust)
    arguments.trust = trust
    arguments.command = ALIASES.get(arguments.command, arguments.command)
    if arguments.command in (None, "inspect"):
        return commands.inspect(package, path)
    if arguments.command == "engine":
        return commands.engine(package, not arguments.no_build, arguments.cache, _say)
    options = BackendOptions(
        arguments.backend, arguments.threads, not arguments.no_build, arguments.cache, arguments.accept_hazards
    )
    predictor = Predictor(package, options, _say)
    if arguments.command == "bench":
        return _benched(arguments, predictor)
    return _with_predictor(arguments, predictor, package)


def _with_predictor(arguments: argparse.Namespace, predictor: Predictor, package: Package) -> CommandView:
    if arguments.command == "predict":
        return predict_asked(predictor, _request(arguments), sys.stdin)
    if arguments.command == "verify":
        names = (one.name for one in fields(commands.VerifyOptions))
        asked = commands.VerifyOptions(**{name: getattr(arguments, name) for name in names})
        return commands.verify(predictor, arguments.data, asked)
    return commands.selftest(predictor, arguments.data)


def _benched(arguments: argparse.Namespace, predictor: Predictor) -> CommandView:
    """The latency of the package, with as many streams and cold starts as were asked for."""
    package, streams, cold = predictor.package, arguments.streams, arguments.cold_starts
    for one in arguments.inputs:
        package.task.inputs.check_argument(one)
    asked = _bench(arguments, package)
    for name, count, least, most in (("--streams", streams, 1, MAX_STREAMS), ("--cold-starts", cold, 0, 1000)):
        if not least <= count <= most:
            raise InputError(f"{name} is {count}; must be {least} to {most}")
    if streams > 1 and len(asked.batches) > 1:
        raise InputError("several batch sizes are measured one query after the other; give --streams or one --batch")
    others = [Predictor(package, predictor.options, lambda text: None) for _ in range(streams - 1)]
    return commands.bench(predictor, asked, others)


def _batches(text: str) -> Tuple[int, ...]:
    """The batch sizes that ``1,8,32`` names."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.lstrip("-").isdigit() and part.isascii() for part in parts) or len(text) > MAX_BATCHES_TEXT:
        raise InputError(f"batch is {line(text[:40])!r}; must be a whole number, or several, as 1,8,32")
    return tuple(map(int, parts))


def _bench(arguments: argparse.Namespace, package: Package) -> BenchOptions:
    """How the latency is measured; budgets that were given take the place of the package's own."""
    given = {p: getattr(arguments, f"max_p{p}_ms") for p in PERCENTILES}
    return BenchOptions(
        rounds=arguments.rounds,
        batches=_batches(arguments.batch),
        max_ms={**package.latency_budgets, **{p: limit for p, limit in given.items() if limit is not None}},
        inputs=tuple(arguments.inputs),
        min_s=arguments.min_seconds,
        cold_starts=arguments.cold_starts,
        max_s=arguments.max_seconds,
        device=package.device_budgets.with_given(
            arguments.throughput_batch, {name: getattr(arguments, name) for name in LIMITS}
        ),
    )


def _request(arguments: argparse.Namespace) -> PredictRequest:
    return PredictRequest(
        inputs=arguments.inputs,
        file=arguments.file,
        camera=arguments.camera,
        every=arguments.every,
        batch=arguments.batch,
        limit=arguments.limit,
        lines=arguments.jsonl,
        options=PredictOptions(arguments.top, arguments.out),
    )


def _parser(archive_path: Optional[str]) -> argparse.ArgumentParser:
    program = f"python {line(os.path.basename(archive_path))}" if archive_path else "python -m dlx_deploy.runtime"
    parser = _Parser(prog=program, description="Runs this inference package.")
    if archive_path is None:
        parser.add_argument("package", help="the .dlx file")
    parser.set_defaults(json=False)
    actions = parser.add_subparsers(dest="command", metavar="COMMAND")

    for name in _names("predict"):
        _predict_options(_command(actions, name, "say what the model makes of images, videos or texts"))

    selftest = _command(actions, "selftest", "compare the golden inputs' outputs with those of the builder")
    selftest.add_argument("--data", metavar="PATH", help="the build's test split: hundreds of its answers compared too")

    bench = _command(actions, "bench", "measure the latency on this machine")
    bench.add_argument("inputs", nargs="*", metavar="INPUT", help="files or texts to read in turn (default: arrays)")
    _bench_options(bench)

    verify = _command(actions, "verify", "compare with the teacher on labelled samples")
    verify.add_argument(
        "--data", required=True, metavar="PATH", help="as training has it: a folder, or texts as .csv or .jsonl"
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
    verify.add_argument("--baseline", metavar="DLX", help="the package released before: is this one worse?")
    verify.add_argument(
        "--max-regression", type=float, metavar="X", help="budget against the baseline (default: as --max-drop)"
    )
    verify.add_argument("--confidence", type=float, metavar="X", help="for instance 0.95 (default: the package's)")
    verify.add_argument("--teacher", metavar="ONNX", help="answers for inputs that the package does not know")

    engine = _command(actions, "engine", "build this machine's engine if need be, and describe it", session=False)
    _engine_options(engine)

    for name in _names("inspect"):
        _command(actions, name, "say what this package is", session=False)
    return parser


def _names(command: str) -> List[str]:
    """What ``command`` may be called."""
    return [command, *(alias for alias, name in ALIASES.items() if name == command)]


def _command(
    actions: argparse._SubParsersAction[_Parser], name: str, text: str, session: bool = True
) -> argparse.ArgumentParser:
    described = f"{text.capitalize()}."
    if name in ALIASES:  # argparse lists what has a help
        parser = actions.add_parser(name, description=described)
    else:
        parser = actions.add_parser(name, description=described, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_trust_options(parser)
    if session:
        parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: ONNX Runtime's choice (default)")
        parser.add_argument("--backend", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: the first here)")
        parser.add_argument(
            "--accept-hazards", action="store_true", help="use a backend that is known to compute this model wrong"
        )
        _engine_options(parser)
    return parser


def _predict_options(parser: argparse.ArgumentParser) -> None:
    inputs = "an image, a folder of them, a video, or a text; -: a line each on stdin"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=inputs)
    parser.add_argument("--file", metavar="FILE", help="inputs, a line each")
    parser.add_argument("--camera", metavar="CAMERA", help="0, /dev/video0, an address or a GStreamer pipeline")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame of a video or camera")
    parser.add_argument("--limit", type=int, metavar="N", help="end after N inputs or frames")
    parser.add_argument("--batch", type=int, metavar="N", help="inputs per run (default: 1 of a video or camera)")
    parser.add_argument("--jsonl", action="store_true", help="print JSON, a line for each input, as it comes")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="answers per input (default: 1)")
    parser.add_argument("--out", metavar="DIR", help="where files are written, if the answers are files")


def _bench_options(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--no-build", action="store_true", help="refuse if an engine would have to be built")
    parser.add_argument("--cache", metavar="DIR", help="where engines are kept (default: the user's cache folder)")


class _Parser(argparse.ArgumentParser):
    """The standard parser, whose messages repeat what was typed, and the name of the package's file."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2, the message on one line."""
        super().error(line(message))

    def _print_message(self, message: str, file: object = None) -> None:
        if message:
            (show if file is sys.stdout else talk)(message.rstrip("\n"))


def _say(text: str) -> None:
    talk(line(text))


def _fail(fault: RuntimeFault) -> int:
    talk(f"error: {line(str(fault))}")
    return fault.exit_code
