"""The command line: parse, call, print, exit code. No work here.

Results go to stdout (``--json`` everywhere), talk and progress to stderr.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import dlx_deploy
from dlx_deploy.errors import ConfigError, DlxError, EnvironmentMissing
from dlx_deploy.runtime.signals import Terminated, interruptible
from dlx_deploy.runtime.terminal import ready, show, silence, talk
from dlx_deploy.runtime.words import escaped, line

if TYPE_CHECKING:
    from dlx_deploy.runtime.predictor import Predictor
    from dlx_deploy.runtime.views import CommandView, View

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    name="dlx-deploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turns a PyTorch model into a verified inference package for an edge device.",
    epilog="Exit codes: 0 done, 1 our bug, 2 usage or configuration, 3 a gate failed, 4 something is not installed, "
    "5 a stage failed, 6 undecided, 7 no engine that may be used, 130 interrupted, 143 by SIGTERM.",
)
targets_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The boards and CPUs that can be built for."
)
app.add_typer(targets_app, name="targets")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; ./deploy.toml if it is there.")
]
TargetOption = Annotated[
    list[str] | None, typer.Option("--target", "-t", help="Target name, alias or board.toml; repeatable.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: --set distill.epochs=5")]
ExactToolsOption = Annotated[
    bool, typer.Option("--exact-tools", help="Make again what another patch version of a library made.")
]
StoreOption = Annotated[Path, typer.Option("--store", help="Where finished stages are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
PackageArgument = Annotated[Path, typer.Argument(help="The .dlx file.", metavar="PACKAGE")]
ThreadsOption = Annotated[int, typer.Option(help="0: ONNX Runtime's choice.", min=0)]

BackendOption = Annotated[
    str | None, typer.Option("--backend", help="What runs the package; the first of its own that is here by default.")
]
NoBuildOption = Annotated[bool, typer.Option("--no-build", help="Refuse if an engine would have to be built.")]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="Where engines are kept.")]

DEFAULT_STORE = Path(".dlx")


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
            return _interrupted(signals)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(signals)
    except BrokenPipeError:  # of the parser's own help: the reader, for instance `head`, has what it wanted
        silence(sys.stdout)
        return 0
    except MemoryError:
        talk("error: this machine has not enough memory for that; give fewer or smaller inputs, or a smaller batch")
        return EnvironmentMissing.exit_code
    except Exception as e:
        return _report(e)


def _interrupted(signals: Sequence[Terminated]) -> int:
    by = f" by {signals[0]}" if signals else ""
    talk(f"interrupted{by}; finished stages are kept: build again to go on")
    return signals[0].exit_code if signals else INTERRUPTED


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


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("deploy.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented deploy.toml that builds as it stands."""
    from dlx_deploy.config.template import render

    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; name another file, or replace it with --force")
    try:
        path.write_text(render(), encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be written ({e.strerror}); name another file") from e
    _say(f"{path} written; build with: dlx-deploy build -c {path}")


@app.command()
def build(
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the packages go.")] = Path("dist"),
    deep: Annotated[bool, typer.Option("--deep", help="Read every stored byte again, trusting no time stamp.")] = False,
    processes: Annotated[int, typer.Option(help="Processes that train together on this machine.", min=1)] = 1,
    exact_tools: ExactToolsOption = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard logs of training there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline for each target and write its package."""
    from dlx_deploy.building import BuildOptions, build_packages, load_work
    from dlx_deploy.report.view import to_json
    from dlx_deploy.stages.support.team import is_worker, run_worker

    if is_worker():
        raise typer.Exit(run_worker())
    work = load_work(config, target, overrides, store, deep, exact_tools)
    for note in work.notes:
        _say(note)
    views, failures = [], []
    for built in build_packages(work, output, BuildOptions(processes, tensorboard, as_json, _say)):
        views.append(built.view.data)
        failures += [built.failure] if built.failure else []
        if not as_json:
            show(built.view.text)
    if as_json:
        show(to_json(views))
    if failures:
        raise min(failures, key=lambda failure: failure.exit_code)  # a failed gate says more than an undecided one


@app.command()
def plan(
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    exact_tools: ExactToolsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a build would do: each stage is a hit, or runs because of something."""
    from dlx_deploy.building import load_work
    from dlx_deploy.report.plans import view_plan

    work = load_work(config, target, overrides, store, exact_tools=exact_tools)
    for note in work.notes:
        _say(note)
    _print(view_plan(work.builds, work.store), as_json)


@app.command()
def why(
    stage: Annotated[str, typer.Argument(help="The stage, as `plan` names it.")],
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    exact_tools: ExactToolsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say why a stage would run, and what its key is made of."""
    from dlx_deploy.building import load_work
    from dlx_deploy.report.plans import view_step

    work = load_work(config, target, overrides, store, exact_tools=exact_tools)
    _print(view_step(work.builds, work.store, stage), as_json)


@app.command()
def status(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Say how the newest build of each target went, or how far it is."""
    from dlx_deploy.report.stores import view_status

    _print(view_status(store), as_json)


@app.command()
def gc(
    config: ConfigOption = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what neither the newest builds nor the configuration need."""
    from dlx_deploy.building import collect

    _print(collect(load_config_file(config), store, dry_run), as_json)


@app.command()
def verify(
    package: PackageArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data", help="Folder of CLASS/IMAGE or test/CLASS/IMAGE, texts as .csv or .jsonl; `digits`, `docstrings`."
        ),
    ],
    max_drop: Annotated[
        float | None, typer.Option(help="Budget, 0.01 is one point; the package's own by default.")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Floor, 0.9 is 90 %; the package's own by default, if it has one.")
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="For instance 0.95; the package's own by default.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Teacher's ONNX, for images the package does not know.")] = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge the shipped bytes again: package against teacher, image by image."""
    from dlx_deploy.building import labelled_data
    from dlx_deploy.runtime.commands import actions as commands

    predictor = _predictor(package, threads, backend, no_build)
    options = commands.VerifyOptions(max_drop, confidence, teacher, threads, min_accuracy)
    with labelled_data(data, package) as folder:
        _finish(commands.verify(predictor, folder, options), as_json)


@app.command(name="run", hidden=True)  # an older name
@app.command()
def predict(
    package: PackageArgument,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Image files, or texts; -: a line each on stdin.", metavar="[INPUT...]")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="Image paths or texts, a line each.")] = None,
    top: Annotated[int, typer.Option(help="Answers per input.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="Where files are written, if the answers are files.")] = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a package's model makes of image files, or of texts."""
    from dlx_deploy.runtime.commands import actions as commands
    from dlx_deploy.runtime.commands.asked import asked_inputs
    from dlx_deploy.runtime.tasks.task import PredictOptions

    predictor = _predictor(package, threads, backend, no_build)
    asked = asked_inputs(predictor.package, inputs or [], file, sys.stdin)
    _finish(commands.predict(predictor, asked, PredictOptions(top, out)), as_json)


@app.command()
def bench(
    package: PackageArgument,
    rounds: Annotated[int, typer.Option(help="Timed runs.", min=1)] = 300,
    batch: Annotated[int, typer.Option(help="Images per run.", min=1)] = 1,
    max_p90_ms: Annotated[float | None, typer.Option(help="Budget; the package's own by default.")] = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a package's latency on this machine; exit 3 if it misses its budget."""
    from dlx_deploy.devices.local import ThisMachine

    command = ["bench", f"--rounds={rounds}", f"--batch={batch}", f"--threads={threads}"]
    command += [] if max_p90_ms is None else [f"--max-p90-ms={max_p90_ms}"]
    command += [] if backend is None else [f"--backend={backend}"]
    command += ["--no-build"] * no_build
    device = ThisMachine()
    _finish(device.run(device.put(package), command), as_json)


@app.command()
def selftest(
    package: PackageArgument,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the golden inputs' outputs with those of the builder; exit 5 if they differ."""
    from dlx_deploy.runtime.commands import actions as commands

    _finish(commands.selftest(_predictor(package, threads, backend, no_build)), as_json)


@app.command(name="info", hidden=True)  # an older name, of the package's own command
@app.command()
def inspect(
    package: PackageArgument,
    tested: Annotated[bool, typer.Option("--selftest", help="As the command selftest.", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a package is, every digest checked."""
    from dlx_deploy.runtime.commands import actions as commands
    from dlx_deploy.runtime.package.contents import open_package

    if tested:
        selftest(package, as_json=as_json)
    else:
        _finish(commands.inspect(open_package(package)), as_json)


@app.command()
def engine(
    package: PackageArgument,
    no_build: NoBuildOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a package's TensorRT engine for this machine if need be, and describe it."""
    from dlx_deploy.runtime.commands import actions as commands
    from dlx_deploy.runtime.package.contents import open_package

    _finish(commands.engine(open_package(package), not no_build, str(cache) if cache else None, _say), as_json)


@targets_app.command(name="list")
def targets_list(as_json: JsonOption = False) -> None:
    """List every target and alias."""
    from dlx_deploy.report.targets import view_targets

    _print(view_targets(), as_json)


@targets_app.command(name="show")
def targets_show(
    target: Annotated[str, typer.Argument(help="Name, alias or board.toml.")], as_json: JsonOption = False
) -> None:
    """Show one target's profile."""
    from dlx_deploy.report.targets import view_target

    _print(view_target(target), as_json)


def load_config_file(config: Path | None) -> Any:
    """The configuration that ``--config`` names, ./deploy.toml, or the built-in one."""
    from dlx_deploy.building import find_config

    return find_config(config)


def _predictor(package: Path, threads: int, backend: str | None, no_build: bool) -> Predictor:
    from dlx_deploy.runtime.backends.table import BackendOptions
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.predictor import Predictor

    return Predictor(open_package(package), BackendOptions(backend, threads, not no_build), _say)


def _say(text: str) -> None:
    talk(line(text))


def _finish(view: CommandView, as_json: bool) -> None:
    _print(view, as_json)
    failure = view.failure
    if failure is not None:
        raise failure


def _print(view: View, as_json: bool) -> None:
    from dlx_deploy.report.view import to_json

    show(to_json(view.data) if as_json else view.text)


if __name__ == "__main__":
    main()
