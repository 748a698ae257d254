"""The command that judges a package again, here or on a board, and joins what a board has shown to its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.ci_output import CiOutput, finishing, reporting, taking_ci
from dlx_deploy.commands.on_board import (
    SIGN_KEY,
    OnOption,
    Reaching,
    attach_proof,
    device_of,
    finish_proven,
    labelled_on,
    package_on,
    taking_board,
)
from dlx_deploy.commands.opening import Opening, taking_opening
from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    JsonOption,
    PackageArgument,
    StoreOption,
    print_view,
    say,
)
from dlx_deploy.commands.passing import given_flags, trust_flags
from dlx_deploy.commands.trusting import Trusting, taking_trust
from dlx_deploy.errors import ConfigError

if TYPE_CHECKING:
    from dlx_deploy.devices.device import Device
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = ["verify"]


@taking_ci
@taking_trust
@taking_board
@taking_opening
def verify(
    trusting: Trusting,
    reaching: Reaching,
    opening: Opening,
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
    max_slice_drop: Annotated[
        float | None, typer.Option(help="Budget of each slice; the package's own by default, 0: of none.")
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            help="Columns whose values are slices: camera,light; the package's own by default.", metavar="NAMES"
        ),
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
        typer.Option(SIGN_KEY, help="With --on: sign the manifest, the proof in it (PEM).", metavar="PEM"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the shipped bytes again: package against teacher, image by image; on a board, and its budgets too."""
    from dlx_deploy.delivery import labelled_data
    from dlx_deploy.runtime.records import replace

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

        check_signer(SigningKey(sign_key, option=SIGN_KEY))  # before the board is measured
    if data is None:
        raise ConfigError("verify needs labelled samples, --data DIR, or what a board has shown, --attach proof.json")

    given = {
        "max-drop": max_drop,
        "min-accuracy": min_accuracy,
        "max-flips": max_flips,
        "max-class-drop": max_class_drop,
        "max-slice-drop": max_slice_drop,
        "slices": slices,
        "max-regression": max_regression,
        "confidence": confidence,
    }
    session = [*opening.flags(), *trust_flags(trusting, on)]
    trust = trusting.trust()
    with (
        reporting(ci, "verify", package.name) as told,
        labelled_data(data, package, trust) as folder,
        device_of(on, reaching) as device,
    ):
        there = package_on(device, package, trust)
        labelled = labelled_on(device, on, package, folder, trust, slices)
        files = {
            "baseline": baseline and package_on(device, baseline, trust and replace(trust, signature=None)),
            "teacher": teacher and device.put(teacher),
        }
        command = ["verify", f"--data={labelled}", *given_flags({**given, **files}), *session]
        view = _verified(device, package, there, command, store, trust)

        def attaching() -> None:
            if on is not None:
                attach_proof(view, package, store, trust, sign_key)

        finish_proven(view, attaching, lambda: finishing(told, "verify", package.name, view, as_json))


def _verified(
    device: Device, package: Path, there: str, command: Sequence[str], store: Path, trust: Trust | None
) -> CommandView:
    """What the ``package``, which is ``there`` on the device, says to ``verify``, by the teacher out of the ``store``
    where it does not know the samples."""
    from dlx_deploy.runtime.errors import InputError, TeacherNeeded

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
