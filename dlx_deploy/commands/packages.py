"""Commands on a package: how fast it is, whether it is sound, its engine; the same that it has itself, on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from dlx_deploy.commands.ci_output import CiOutput, finishing, reporting, taking_ci
from dlx_deploy.commands.handing import hand_over
from dlx_deploy.commands.on_board import OnOption, Reaching, device_of, labelled_on, package_on, taking_board
from dlx_deploy.commands.opening import Opening, taking_opening
from dlx_deploy.commands.options import (
    CacheOption,
    JsonOption,
    NoBuildOption,
    PackageArgument,
    finish,
)
from dlx_deploy.commands.passing import given_flags, trust_flags
from dlx_deploy.commands.trusting import Trusting, taking_trust

__all__ = ["bench", "engine", "selftest"]


@taking_ci
@taking_trust
@taking_board
@taking_opening
def bench(
    trusting: Trusting,
    reaching: Reaching,
    opening: Opening,
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
    as_json: JsonOption = False,
) -> None:
    """Measure a package's latency on this machine, or on a board; exit 3 if it misses its budget."""
    from dlx_deploy.runtime.package.contents import open_package

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
    command = ["bench", *given_flags({**counts, **limits, **length, **resources})]
    session = [*opening.flags(), *trust_flags(trusting, on)]
    with reporting(ci, "bench", package.name) as told, device_of(on, reaching) as device:
        trust = trusting.trust()
        handed = hand_over(device, open_package(package, trust), inputs or [])
        there = package_on(device, package, trust)
        view = handed.run(device, there, [*command, *session])
        finishing(told, "bench", package.name, view, as_json)


@taking_trust
@taking_board
@taking_opening
def selftest(
    trusting: Trusting,
    reaching: Reaching,
    opening: Opening,
    package: PackageArgument,
    data: Annotated[
        str | None,
        typer.Option("--data", help="The build's test split: hundreds of answers are compared with its builder's too."),
    ] = None,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the golden inputs' outputs with those of the builder, here or on a board; exit 5 if they differ."""
    from dlx_deploy.delivery import labelled_data

    session = [*opening.flags(), *trust_flags(trusting, on)]
    trust = trusting.trust()
    with device_of(on, reaching) as device:
        there = package_on(device, package, trust)
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
    finish(device.run(device.put(package), ["engine", *given_flags({"cache": cache}), *flags]), as_json)
