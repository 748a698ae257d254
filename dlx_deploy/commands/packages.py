"""Commands on a package: the same that it has itself, run on a device."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.ci_output import CiOutput, finishing, reporting, taking_ci
from dlx_deploy.commands.on_board import (
    OnOption,
    Reaching,
    attach_proof,
    device_of,
    finish_proven,
    labelled_on,
    package_on,
    taking_board,
)
from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    AcceptHazardsOption,
    BackendOption,
    CacheOption,
    JsonOption,
    NoBuildOption,
    PackageArgument,
    StoreOption,
    ThreadsOption,
    finish,
    print_view,
    say,
)
from dlx_deploy.commands.trusting import Trusting, taking_trust
from dlx_deploy.errors import ConfigError

if TYPE_CHECKING:
    from dlx_deploy.devices.device import Device
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = ["bench", "engine", "predict", "selftest", "verify"]


@taking_ci
@taking_trust
@taking_board
def verify(
    trusting: Trusting,
    reaching: Reaching,
    ci: CiOutput,
    package: PackageArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="As training has it: a folder, texts as .csv or .jsonl, or built-in data by their kind."
        ),
    ] = None,
    attached: Annotated[
        Path | None,
        typer.Option("--attach", help="What verify --json wrote on a board: join it to the manifest.", metavar="JSON"),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Budget, 0.01 is one point; the package's own by default.")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Floor, 0.9 is 90 %; the package's own by default, if it has one.")
    ] = None,
    max_flips: Annotated[
        float | None,
        typer.Option(help="Budget of answers that changed, 0.05 is 5 %; the package's own by default, if it has one."),
    ] = None,
    max_class_drop: Annotated[
        float | None, typer.Option(help="Budget of each class; the package's own by default, if it has one.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The package released before: is this one worse?", metavar="DLX")
    ] = None,
    max_regression: Annotated[
        float | None, typer.Option(help="Budget against the baseline; that of --max-drop by default.")
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="For instance 0.95; the package's own by default.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Teacher's ONNX, for images the package does not know; else the store's.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    on: OnOption = None,
    sign_key: Annotated[
        Path | None,
        typer.Option("--sign-key", help="With --on: sign the manifest, the proof in it (PEM).", metavar="PEM"),
    ] = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    accept_hazards: AcceptHazardsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge the shipped bytes again: package against teacher, image by image; on a board, and its budgets too."""
    from dlx_deploy.building import labelled_data

    if attached is not None:
        from dlx_deploy.report.ci import proof_cases
        from dlx_deploy.report.proofs import attach

        with reporting(ci, "verify", package.name) as told:
            joined = attach(package, attached, store, trusting.trust())
            print_view(joined, as_json)
            told += proof_cases(joined.board, joined.proof)
        return
    if sign_key is not None and on is None:
        raise ConfigError("--sign-key signs what a board has shown: give the board by --on, or sign the package: sign")
    if sign_key is not None:
        from dlx_deploy.signing import SigningKey, check_signer

        check_signer(SigningKey(sign_key))  # before the board is measured
    if data is None:
        raise ConfigError("verify needs labelled samples, --data DIR, or what a board has shown, --attach proof.json")

    given = {
        "max-drop": max_drop,
        "min-accuracy": min_accuracy,
        "max-flips": max_flips,
        "max-class-drop": max_class_drop,
        "max-regression": max_regression,
        "confidence": confidence,
    }
    session, trust = [*_session(threads, backend, no_build, accept_hazards), *_flags(trusting, on)], trusting.trust()
    with (
        reporting(ci, "verify", package.name) as told,
        labelled_data(data, package, trust) as folder,
        device_of(on, reaching) as device,
    ):
        labelled = labelled_on(device, on, package, folder, trust)
        files = {name: device.put(path) for name, path in (("baseline", baseline), ("teacher", teacher)) if path}
        command = ["verify", f"--data={labelled}", *_given({**given, **files}), *session]
        view = _verified(device, package, command, store, trust)

        def attaching() -> None:
            if on is not None:
                attach_proof(view, package, store, trust, sign_key)

        finish_proven(view, attaching, lambda: finishing(told, "verify", package.name, view, as_json))


@taking_trust
def predict(
    trusting: Trusting,
    package: PackageArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders of them, videos, or texts; -: a line each on stdin.", metavar="[INPUT...]"
        ),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="Inputs, a line each.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="0, /dev/video0, an address (rtsp://…) or a GStreamer pipeline.")
    ] = None,
    every: Annotated[int, typer.Option(help="Each so many frames of a video or camera one is read.")] = 1,
    limit: Annotated[int | None, typer.Option(help="End after so many inputs or frames.")] = None,
    batch: Annotated[int | None, typer.Option(help="Inputs per run; by default 1 of a video or camera.")] = None,
    as_lines: Annotated[bool, typer.Option("--jsonl", help="Print JSON, a line for each input, as it comes.")] = False,
    drift: Annotated[bool, typer.Option("--drift", help="Hold inputs and answers against those of the build.")] = False,
    top: Annotated[int, typer.Option(help="Answers per input.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="Where files are written, if the answers are files.")] = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    accept_hazards: AcceptHazardsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a package's model makes of images, videos or texts."""
    from dlx_deploy.runtime.backends.table import BackendOptions
    from dlx_deploy.runtime.commands.predicting import PredictRequest, predict_asked
    from dlx_deploy.runtime.commands.prediction_views import StreamView
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.predictor import Predictor
    from dlx_deploy.runtime.tasks.task import PredictOptions
    from dlx_deploy.runtime.terminal import show_each

    opened = BackendOptions(backend, threads, not no_build, accept_hazards=accept_hazards)
    predictor = Predictor(open_package(package, trusting.trust()), opened, say)
    options = PredictOptions(top, out)
    request = PredictRequest(inputs or [], file, camera, every, batch, limit, as_lines, options, drift)
    view = predict_asked(predictor, request, sys.stdin)
    if isinstance(view, StreamView) and (as_lines or not as_json):
        show_each(view.lines())
    else:
        finish(view, as_json)


@taking_ci
@taking_trust
@taking_board
def bench(
    trusting: Trusting,
    reaching: Reaching,
    ci: CiOutput,
    package: PackageArgument,
    inputs: Annotated[list[str] | None, typer.Argument(help="Files or texts to read in turn; default: arrays.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Timed runs; by default as many as the percentile needs.", min=1)
    ] = None,
    batch: Annotated[str, typer.Option(help="Inputs per run; several, as 1,8,32: throughput at each.")] = "1",
    streams: Annotated[int, typer.Option(help="Queries in flight, each with a session of its own.")] = 1,
    cold_starts: Annotated[int, typer.Option(help="Fresh processes, timed to their first answer; their memory.")] = 0,
    max_p50_ms: Annotated[float | None, typer.Option(help="Budget of p50; the package's own by default.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Budget of p90; the package's own by default.")] = None,
    max_p99_ms: Annotated[float | None, typer.Option(help="Budget of p99; the package's own by default.")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="At least so long; 3 with a budget.")] = None,
    max_seconds: Annotated[float, typer.Option(help="And no longer.")] = 60.0,
    min_throughput: Annotated[
        float | None, typer.Option(help="Budget: samples a second without a pause; the package's own by default.")
    ] = None,
    throughput_batch: Annotated[
        int | None, typer.Option(help="So many at a time, for that; the package's own by default.")
    ] = None,
    max_memory_mib: Annotated[
        float | None, typer.Option(help="Budget of the peak of a process that runs it; the package's own by default.")
    ] = None,
    max_size_mib: Annotated[
        float | None, typer.Option(help="Budget of the package's file; the package's own by default.")
    ] = None,
    max_energy_mj: Annotated[
        float | None, typer.Option(help="Budget of an inference's energy beyond idle; the package's own by default.")
    ] = None,
    max_cold_start_ms: Annotated[
        float | None,
        typer.Option(help="Budget of a fresh process's time to its first answer; the package's own by default."),
    ] = None,
    on: OnOption = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    accept_hazards: AcceptHazardsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a package's latency on this machine, or on a board; exit 3 if it misses its budget."""
    if on is not None and inputs:
        raise ConfigError("bench --on takes no files: it times the package's golden inputs there; leave them out")
    limits = {"max-p50-ms": max_p50_ms, "max-p90-ms": max_p90_ms, "max-p99-ms": max_p99_ms}
    length = {"rounds": rounds, "min-seconds": min_seconds, "max-seconds": max_seconds}
    counts = {"batch": batch, "streams": streams, "cold-starts": cold_starts}
    resources = {
        "min-throughput": min_throughput,
        "throughput-batch": throughput_batch,
        "max-memory-mib": max_memory_mib,
        "max-size-mib": max_size_mib,
        "max-energy-mj": max_energy_mj,
        "max-cold-start-ms": max_cold_start_ms,
    }
    command = ["bench", *_given({**counts, **limits, **length, **resources})]
    session = [*_session(threads, backend, no_build, accept_hazards), *_flags(trusting, on)]
    with reporting(ci, "bench", package.name) as told, device_of(on, reaching) as device:
        there = package_on(device, on, package, trusting.trust())
        view = device.run(there, [*command, *session, *(["--", *inputs] if inputs else [])])
        finishing(told, "bench", package.name, view, as_json)


@taking_trust
@taking_board
def selftest(
    trusting: Trusting,
    reaching: Reaching,
    package: PackageArgument,
    data: Annotated[
        str | None,
        typer.Option("--data", help="The build's test split: hundreds of answers are compared with its builder's too."),
    ] = None,
    on: OnOption = None,
    threads: ThreadsOption = 0,
    backend: BackendOption = None,
    no_build: NoBuildOption = False,
    accept_hazards: AcceptHazardsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the golden inputs' outputs with those of the builder, here or on a board; exit 5 if they differ."""
    from dlx_deploy.building import labelled_data

    session, trust = [*_session(threads, backend, no_build, accept_hazards), *_flags(trusting, on)], trusting.trust()
    with device_of(on, reaching) as device:
        there = package_on(device, on, package, trust)
        if data is None:
            finish(device.run(there, ["selftest", *session]), as_json)
            return
        with labelled_data(data, package, trust) as folder:
            labelled = labelled_on(device, on, package, folder, trust)
            finish(device.run(there, ["selftest", f"--data={labelled}", *session]), as_json)


@taking_trust
def engine(
    trusting: Trusting,
    package: PackageArgument,
    no_build: NoBuildOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a package's TensorRT engine for this machine if need be, and describe it."""
    from dlx_deploy.devices.local import ThisMachine

    flags = [*["--no-build"] * no_build, *trusting.flags()]
    device = ThisMachine()
    finish(device.run(device.put(package), ["engine", *_given({"cache": cache}), *flags]), as_json)


def _verified(device: Device, package: Path, command: Sequence[str], store: Path, trust: Trust | None) -> CommandView:
    """What ``verify`` gives, by the teacher out of the ``store`` where the package does not know the samples."""
    from dlx_deploy.runtime.errors import InputError, TeacherNeeded

    there = device.put(package)
    try:
        return device.run(there, command)
    except TeacherNeeded as e:
        from dlx_deploy.delivery import stored_teacher

        found = stored_teacher(package, store, trust)
        if found is None:
            raise InputError(f"{e}; the store {store} does not hold it, name the build's: --store DIR") from e
        say(f"{e.what} (first: {e.first[0]}) are new to the package: all are judged by its teacher out of the store")
        say(f"teacher: {found.path}, of the step {found.step!r}, found by the SHA-256 in the package")
        return device.run(there, [*command, f"--teacher={device.put(found.path)}"])


def _flags(trusting: Trusting, on: str | None) -> list[str]:
    """Whose signature the package must have, for where it is run: what goes to a board is checked here."""
    return trusting.flags() if on is None else []


def _session(threads: int, backend: str | None, no_build: bool, accept_hazards: bool) -> list[str]:
    flags = [*["--no-build"] * no_build, *["--accept-hazards"] * accept_hazards]
    return [f"--threads={threads}", *_given({"backend": backend}), *flags]


def _given(options: Mapping[str, object]) -> list[str]:
    """The options that have a value, as a package's own command line takes them."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]
