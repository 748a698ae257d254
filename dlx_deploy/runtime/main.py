"""The command line of a package: ``python X.dlx predict cat.jpg``. The only module that prints."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Optional, Sequence

from . import commands
from .archive import to_json
from .backends import BACKENDS, BackendOptions
from .bench import BenchOptions
from .commands import Outcome
from .errors import RuntimeFault
from .package import Package, open_package
from .predictor import Predictor
from .signals import Terminated, interruptible

__all__ = ["main"]

INTERRUPTED = 130


def main(argv: Sequence[str], archive_path: Optional[str] = None) -> int:
    """Runs a command on the package at ``archive_path`` (``None``: named by the first argument); gives the exit code.

    Results go to stdout, talk to stderr. 0 done, 2 unusable input or package, 3 a budget missed, 4 a library missing,
    5 the self-test failed, 6 undecided, 7 no engine that may be used, 130 interrupted, 143 by
    SIGTERM.
    """
    try:
        arguments = _parser(archive_path).parse_args(argv)
        with interruptible():
            outcome = _run(arguments, archive_path or arguments.package)
        if arguments.command is None:
            outcome = Outcome(outcome.data, f"{outcome.text}\n\n{_parser(archive_path).format_help().rstrip()}")
        _print(to_json(outcome.data).decode("utf-8") if arguments.json else outcome.text + "\n")
    except RuntimeFault as e:
        return _fail(e)
    except Terminated as e:
        sys.stderr.write(f"interrupted by {e}\n")
        return e.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return _fail(outcome.failure) if outcome.failure else 0


def _run(arguments: argparse.Namespace, path: str) -> Outcome:
    package = open_package(path)
    if arguments.command in (None, "info"):
        return commands.info(package)
    if arguments.command == "engine":
        return commands.engine(package, not arguments.no_build, arguments.cache, _say)
    options = BackendOptions(arguments.backend, arguments.threads, not arguments.no_build, arguments.cache)
    predictor = Predictor(package, options, _say)
    return _with_predictor(arguments, predictor, package)


def _with_predictor(arguments: argparse.Namespace, predictor: Predictor, package: Package) -> Outcome:
    if arguments.command == "predict":
        return commands.predict(predictor, commands.listed(arguments.inputs, sys.stdin), arguments.top)
    if arguments.command == "bench":
        budget = package.max_latency_p90_ms if arguments.max_p90_ms is None else arguments.max_p90_ms
        options = BenchOptions(rounds=arguments.rounds, batch=arguments.batch, max_p90_ms=budget)
        return commands.bench(predictor, options)
    if arguments.command == "verify":
        given = commands.VerifyOptions(
            arguments.max_drop, arguments.confidence, arguments.teacher, arguments.threads, arguments.min_accuracy
        )
        return commands.verify(predictor, arguments.data, given)
    return commands.selftest(predictor)


def _parser(archive_path: Optional[str]) -> argparse.ArgumentParser:
    program = f"python {os.path.basename(archive_path)}" if archive_path else "python -m dlx_deploy.runtime.main"
    parser = argparse.ArgumentParser(prog=program, description="Runs this inference package.")
    if archive_path is None:
        parser.add_argument("package", help="the .dlx file")
    parser.set_defaults(json=False)
    actions = parser.add_subparsers(dest="command", metavar="COMMAND")

    predict = _command(actions, "predict", "classify image files, or texts")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="an image file or a text; -: a line each on stdin")
    predict.add_argument("--top", type=int, default=1, metavar="K", help="classes per input (default: 1)")

    _command(actions, "selftest", "compare the golden inputs' outputs with those of the builder")

    bench = _command(actions, "bench", "measure the latency on this machine")
    bench.add_argument("--rounds", type=int, default=300, metavar="N", help="timed runs (default: 300)")
    bench.add_argument("--batch", type=int, default=1, metavar="N", help="inputs per run (default: 1)")
    bench.add_argument("--max-p90-ms", type=float, metavar="MS", help="budget (default: the package's, if it has one)")

    verify = _command(actions, "verify", "compare with the teacher on labelled images or texts")
    verify.add_argument(
        "--data", required=True, metavar="PATH", help="folder of CLASS/IMAGE or test/CLASS/IMAGE; texts: .csv, .jsonl"
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
    verify.add_argument("--confidence", type=float, metavar="X", help="for instance 0.95 (default: the package's)")
    verify.add_argument("--teacher", metavar="ONNX", help="answers for inputs that the package does not know")

    engine = _command(actions, "engine", "build this machine's engine if need be, and describe it", session=False)
    _engine_options(engine)

    _command(actions, "info", "say what this package is", session=False)
    return parser


def _command(actions: Any, name: str, text: str, session: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("--json", action="store_true", help="print JSON")
    if session:
        parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: ONNX Runtime's choice (default)")
        parser.add_argument("--backend", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: the first here)")
        _engine_options(parser)
    return parser


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-build", action="store_true", help="refuse if an engine would have to be built")
    parser.add_argument("--cache", metavar="DIR", help="where engines are kept (default: the user's cache folder)")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, for instance `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(fault: RuntimeFault) -> int:
    sys.stderr.write(f"error: {fault}\n")
    return fault.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
