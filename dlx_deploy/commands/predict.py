"""The command that asks a package's model, here or on a board."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.handing import hand_over
from dlx_deploy.commands.on_board import OnOption, Reaching, device_of, package_on, taking_board
from dlx_deploy.commands.opening import Opening, taking_opening
from dlx_deploy.commands.options import (
    JsonOption,
    PackageArgument,
    finish,
    say,
)
from dlx_deploy.commands.passing import given_flags
from dlx_deploy.commands.trusting import Trusting, taking_trust
from dlx_deploy.errors import ConfigError

if TYPE_CHECKING:
    from dlx_deploy.runtime.commands.predicting import PredictRequest
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = ["predict"]


@taking_trust
@taking_board
@taking_opening
def predict(
    trusting: Trusting,
    reaching: Reaching,
    opening: Opening,
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
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a package's model makes of images, videos or texts, here or on a board."""
    from dlx_deploy.runtime.commands.predicting import PredictRequest, predict_asked
    from dlx_deploy.runtime.commands.prediction_views import StreamView
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.predictor import Predictor
    from dlx_deploy.runtime.tasks.task import PredictOptions
    from dlx_deploy.runtime.terminal import show_each

    options = PredictOptions(top, out)
    request = PredictRequest(inputs or [], file, camera, every, batch, limit, as_lines, options, drift)
    if on is not None:
        there = _predicted_there(on, reaching, package, trusting.trust(), request, opening.flags())
        if as_lines:
            show_each(_lines(there))
        else:
            finish(there, as_json)
        return
    predictor = Predictor(open_package(package, trusting.trust()), opening.options(), say)
    view = predict_asked(predictor, request, sys.stdin)
    if isinstance(view, StreamView) and (as_lines or not as_json):
        show_each(view.lines())
    else:
        finish(view, as_json)


def _predicted_there(
    on: str, reaching: Reaching, path: Path, trust: Trust | None, request: PredictRequest, session: Sequence[str]
) -> CommandView:
    """What the model says on a board, to which the inputs go; a camera is the board's own.

    Raises:
        ConfigError: what was asked for cannot be had from there.
    """
    from dlx_deploy.runtime.commands.asked import STDIN, asked_inputs
    from dlx_deploy.runtime.package.contents import open_package

    if request.options.out is not None:
        raise ConfigError(
            f"--out {request.options.out}: with --on {on} files would be written there, and none come back; leave it "
            "away, or predict here"
        )
    if request.camera is not None and request.limit is None:
        raise ConfigError(f"--camera {request.camera} has no end, and with --on answers come at it; give --limit N")
    package = open_package(path, trust)
    inputs, file = request.inputs, request.file
    are_lines = request.camera is None and (file is not None or list(inputs) == [STDIN])
    if request.camera is None:
        inputs, file = asked_inputs(package, inputs, file, sys.stdin), None
    given = {"file": file, **{name: getattr(request, name) for name in ("camera", "batch", "limit", "every")}}
    flags = [f"--top={request.options.top}", *["--drift"] * request.drift, *given_flags(given)]
    with device_of(on, reaching) as device:
        limit = request.limit if request.every == 1 else None  # else a video that is not come to counts
        handed = hand_over(device, package, inputs, are_lines, limit)
        return handed.run(device, package_on(device, path, trust), ["predict", *flags, *session])


def _lines(view: CommandView) -> Generator[str, None, None]:
    """A line of JSON for each answer, as ``--jsonl`` prints it."""
    for row in view.data.get("predictions", ()):
        answer = {"schema": view.data.get("schema"), **row}
        yield json.dumps(answer, sort_keys=True, ensure_ascii=False, allow_nan=False)
