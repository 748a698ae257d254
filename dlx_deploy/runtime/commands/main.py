"""The command line of a package: ``python X.dlx predict cat.jpg``. The only module that prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from ..backends.table import BackendOptions
from ..device_budgets import LIMITS, PERCENTILES
from ..errors import BackendMissing, InputError, RuntimeFault
from ..files import machine_fault
from ..package.archive import to_json
from ..package.contents import Package, open_package
from ..package.trust import Trust
from ..predictor import Predictor
from ..signals import INTERRUPTED, Terminated, interruptible
from ..terminal import ready, show, show_each, talk
from ..views import CommandView, Outcome
from ..words import line
from .plain import plain_arguments
from .trusting import asked_trust

if TYPE_CHECKING:
    from argparse import Namespace

    from .bench import BenchOptions
    from .plain import Arguments

__all__ = ["main", "view_of"]

MAX_STREAMS = 256
MAX_BATCHES_TEXT = 200


def main(argv: Sequence[str], archive_path: Optional[str] = None) -> int:
    """Runs a command on the package at ``archive_path`` (``None``: named by the first argument); gives the exit code.

    Results go to stdout, talk to stderr. 0 done, 2 unusable input or package, 3 a budget missed, 4 a library missing,
    5 the self-test failed, 6 undecided, 7 no engine that may be used, 130 interrupted, 143 by SIGTERM, 1 a bug; 8 is
    the watchdog's, of ``serve``.
    """
    ready()
    try:
        arguments = plain_arguments(archive_path, argv) or _parsed(archive_path, argv)
        with interruptible():
            trust = asked_trust(arguments, archive_path is not None)
            if arguments.command == "serve":
                return _serve(arguments, archive_path or arguments.package, trust)
            view = _run(arguments, archive_path or arguments.package, trust)
            if arguments.command == "predict" and _is_shown_as_it_comes(view, arguments):
                return 0
        if arguments.command is None:
            view = Outcome(view.data, f"{view.text}\n\n{_help(archive_path)}")
        failure = view.failure
        show(to_json(view.data).decode("utf-8").rstrip("\n") if arguments.json else view.text)
    except RuntimeFault as e:
        return _fail(e)
    except Terminated as e:
        talk(f"interrupted by {e}")
        return e.exit_code
    except MemoryError:
        return _fail(BackendMissing("this machine has not enough memory for that; give fewer or smaller inputs"))
    except Exception as e:
        import traceback

        if isinstance(e, OSError) and (fault := machine_fault(e)):
            return _fail(BackendMissing(fault))
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
        arguments = _parsed(package, command)
    except SystemExit as e:  # argparse has said why
        raise InputError(f"{line(' '.join(command))!r} is no command that a package has; see: {package} --help") from e
    if arguments.command == "serve":
        raise InputError(f"serve answers until it is told to end, and gives no result: run it itself, {package} serve")
    return _run(arguments, package, asked_trust(arguments, inside=False))


def _parsed(archive_path: Optional[str], argv: Sequence[str]) -> Namespace:
    """What the parser makes of ``argv``; an alias of a command is that command."""
    from .options import ALIASES, make_parser

    arguments = make_parser(archive_path, argv).parse_args(argv)
    arguments.command = ALIASES.get(arguments.command, arguments.command)
    return arguments


def _help(archive_path: Optional[str]) -> str:
    from .options import make_parser

    return make_parser(archive_path, ()).format_help().rstrip()


def _run(arguments: Arguments, path: str, trust: Optional[Trust]) -> CommandView:
    package = open_package(path, trust)
    arguments.trust = trust
    if arguments.command in (None, "inspect", "engine"):
        from . import actions

        if arguments.command != "engine":
            return actions.inspect(package, path)
        return actions.engine(package, not arguments.no_build, arguments.cache, _say)
    predictor = Predictor(package, _options(arguments), _say)
    del package  # it holds the model's bytes, and the predictor's own does not
    if arguments.command == "predict":
        return _predicted(arguments, predictor)
    if arguments.command == "bench":
        return _benched(arguments, predictor)
    return _tested(arguments, predictor)


def _options(arguments: Arguments) -> BackendOptions:
    return BackendOptions(
        arguments.backend, arguments.threads, not arguments.no_build, arguments.cache, arguments.accept_hazards
    )


def _serve(arguments: Arguments, path: str, trust: Optional[Trust]) -> int:
    """Serves until it is told to end."""
    from .serve_options import request_of
    from .serving import serve  # what it needs of the standard library takes longer than all else here

    predictor = Predictor(open_package(path, trust), _options(arguments), _say)
    return serve([predictor], request_of(arguments), show, _say, arguments.json)


def _predicted(arguments: Arguments, predictor: Predictor) -> CommandView:
    """The answers; nothing of the other commands is imported for them, which is most of what a start would take."""
    from ..tasks.task import PredictOptions
    from .predicting import PredictRequest, predict_asked

    request = PredictRequest(
        inputs=arguments.inputs,
        file=arguments.file,
        camera=arguments.camera,
        every=arguments.every,
        batch=arguments.batch,
        limit=arguments.limit,
        lines=arguments.jsonl,
        drift=arguments.drift,
        options=PredictOptions(arguments.top, arguments.out),
    )
    return predict_asked(predictor, request, sys.stdin)


def _is_shown_as_it_comes(view: CommandView, arguments: Arguments) -> bool:
    """Whether these are answers that come over time, and were printed so."""
    from .prediction_views import StreamView

    if not isinstance(view, StreamView) or (arguments.json and not arguments.jsonl):
        return False
    show_each(view.lines())
    return True


def _tested(arguments: Arguments, predictor: Predictor) -> CommandView:
    from dataclasses import fields

    from . import actions

    if arguments.command == "selftest":
        return actions.selftest(predictor, arguments.data)
    names = (one.name for one in fields(actions.VerifyOptions))
    asked = actions.VerifyOptions(**{name: getattr(arguments, name) for name in names})
    return actions.verify(predictor, arguments.data, asked)


def _benched(arguments: Arguments, predictor: Predictor) -> CommandView:
    """The latency of the package, with as many streams and cold starts as were asked for."""
    from . import actions

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
    return actions.bench(predictor, asked, others)


def _batches(text: str) -> Tuple[int, ...]:
    """The batch sizes that ``1,8,32`` names."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.lstrip("-").isdigit() and part.isascii() for part in parts) or len(text) > MAX_BATCHES_TEXT:
        raise InputError(f"batch is {line(text[:40])!r}; must be a whole number, or several, as 1,8,32")
    return tuple(map(int, parts))


def _bench(arguments: Arguments, package: Package) -> BenchOptions:
    """How the latency is measured; budgets that were given take the place of the package's own."""
    from .bench import BenchOptions

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


def _say(text: str) -> None:
    talk(line(text))


def _fail(fault: RuntimeFault) -> int:
    talk(f"error: {line(str(fault))}")
    return fault.exit_code
