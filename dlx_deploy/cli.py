"""The command line: parse, call, print, exit code. No work here.

Results go to stdout (``--json`` everywhere), talk and progress to stderr.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

import dlx_deploy
from dlx_deploy.commands import (
    boards,
    bringing,
    builds,
    data,
    debugging,
    initial,
    inspection,
    neighbours,
    packages,
    predict,
    pushing,
    reports,
    search,
    serve,
    signing,
    targets,
    verify,
)
from dlx_deploy.errors import DlxError, EnvironmentMissing
from dlx_deploy.runtime.signals import INTERRUPTED, Terminated, interruptible
from dlx_deploy.runtime.terminal import ready, show, silence, talk
from dlx_deploy.runtime.words import escaped

__all__ = ["app", "main"]


app = typer.Typer(
    name="dlx-deploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turns a PyTorch model into a verified inference package for an edge device.",
    epilog="Exit codes: 0 done, 1 our bug, 2 usage or configuration, 3 a gate failed, 4 something is not installed, "
    "5 a stage failed, 6 undecided, 7 no engine that may be used, 8 a server hung, 130 interrupted, 143 by SIGTERM.",
)
targets_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The boards and CPUs that can be built for."
)
app.add_typer(targets_app, name="targets")

COMMANDS: tuple[Callable[..., None], ...] = (
    initial.init,
    data.data,
    builds.build,
    bringing.quantize,
    search.search,
    builds.plan,
    builds.why,
    builds.status,
    reports.report,
    builds.gc,
    verify.verify,
    debugging.debug,
    predict.predict,
    packages.bench,
    packages.selftest,
    serve.serve,
    inspection.inspect,
    packages.engine,
    signing.sign,
    pushing.push,
    boards.boards,
    neighbours.export_bundle,
    targets.hazards,
)
"""In the order of ``--help``."""
for command in COMMANDS:
    app.command()(command)
app.command(name="run", hidden=True)(predict.predict)  # older names
app.command(name="info", hidden=True)(inspection.inspect)
targets_app.command(name="list")(targets.targets_list)
targets_app.command(name="show")(targets.targets_show)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    ready()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command line; every error ends here as a message on stderr."""
    try:
        with interruptible() as signals:
            code = app(arguments, standalone_mode=False)
        if signals or code == INTERRUPTED:  # the parser makes any KeyboardInterrupt a 130
            return _interrupted(signals, arguments)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(signals, arguments)
    except BrokenPipeError:  # of the parser's own help: the reader, for instance `head`, has what it wanted
        silence(sys.stdout)
        return 0
    except MemoryError:
        talk("error: this machine has not enough memory for that; give fewer or smaller inputs, or a smaller batch")
        return EnvironmentMissing.exit_code
    except OSError as e:
        return _report(_of_this_machine(e))
    except Exception as e:
        return _report(e)


BUILDS = "finished stages are kept: build again to go on"
PUSHES = "what has arrived on a board is kept, and what is current there is whole: push again to go on"
GOES_BACK = "a board that was reached may have gone back already: boards says what is current there"
AFTERWARDS = {
    "push": PUSHES,
    **dict.fromkeys(("verify", "predict", "run", "bench", "selftest", "serve", "engine"), ""),
    **dict.fromkeys(("inspect", "info", "sign", "boards", "export-bundle", "init"), ""),
}
"""Command → what is so after it was interrupted; of all others ``BUILDS``."""


def _interrupted(signals: Sequence[Terminated], arguments: Sequence[str]) -> int:
    by = f" by {signals[0]}" if signals else ""
    words = GOES_BACK if "--rollback" in arguments else AFTERWARDS.get(next(iter(arguments), ""), BUILDS)
    talk(f"interrupted{by}{'; ' if words else ''}{words}")
    return signals[0].exit_code if signals else INTERRUPTED


def _of_this_machine(error: OSError) -> Exception:
    from dlx_deploy.runtime.files import machine_fault

    fault = machine_fault(error)
    return EnvironmentMissing(fault) if fault else error


def _report(error: Exception) -> int:
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own: usage
        usage = io.StringIO()
        error.show(file=usage)
        talk(usage.getvalue().rstrip())
        return int(error.exit_code)
    if isinstance(error, DlxError) or type(error).__module__ == "dlx_deploy.runtime.errors":
        talk("error: " + str(error).strip().replace("\n", "\n  "))  # a line of others' words never looks like ours
        if error.__cause__ is not None and not isinstance(error.__cause__, (DlxError, OSError)):
            _log_cause(error.__cause__)
        return int(getattr(error, "exit_code", 1))
    talk("".join(traceback.format_exception(error)).rstrip())
    talk("error: this is a bug in dlx-deploy; please report it with the lines above")
    return 1


def _log_cause(cause: BaseException) -> None:
    import logging

    logging.getLogger(__name__).debug("caused by", exc_info=cause)


@app.callback(invoke_without_command=True)
def _globals(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside, to stderr.")] = False,
) -> None:
    import logging

    level = logging.DEBUG if verbose else logging.WARNING

    class Escaping(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return escaped(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Escaping("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("dlx_deploy").setLevel(level)
    if version:
        show(dlx_deploy.__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
