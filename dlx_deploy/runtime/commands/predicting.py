"""``predict`` as a command: where its samples come from, how many run at a time, and answers as they come."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Callable, Generator, Iterable, Iterator, Optional, Sequence, Tuple

from ..errors import InputError
from ..package.contents import Package
from ..package.rules import MAX_BATCH
from ..predictor import Predictor
from ..records import record, replace
from ..tasks.arrays import block_rows
from ..tasks.source import Sample, Source
from ..tasks.task import Inputs, PredictionRow, PredictOptions
from ..views import CommandView
from .asked import asked_inputs
from .prediction_views import PredictionsView, StreamView

if TYPE_CHECKING:
    from ..watching.drift import DriftWatch
    from ..watching.report import DriftReport

__all__ = ["PredictRequest", "answered", "predict_asked"]

DEFAULTS = PredictOptions()
BLOCK = 64  # samples read and run at a time at most


@record
class PredictRequest:
    """What ``predict`` is asked for: ``inputs``, the lines of ``file``, or a ``camera``, one of the three.

    ``every``: of a video or camera, each so many frames one is read. ``batch``: how many samples run at a time;
    ``None``: one where they come over time, else what memory allows, up to 64. ``limit``: after so many samples it
    ends. ``lines``: JSON, a line for each sample, printed as it comes. ``drift``: samples and answers are held against
    those of the build, which the predictor's ``say`` hears of.
    """

    inputs: Sequence[str] = ()
    file: Optional[str] = None
    camera: Optional[str] = None
    every: int = 1
    batch: Optional[int] = None
    limit: Optional[int] = None
    lines: bool = False
    options: PredictOptions = DEFAULTS
    drift: bool = False


def predict_asked(predictor: Predictor, request: PredictRequest, stdin: Iterable[str]) -> CommandView:
    """What the model says of what was asked for: all of it, or, of a video, a camera and for ``lines``, as it comes.

    Raises:
        InputError, BackendMissing: as ``asked_inputs``, ``Inputs.open_source`` and ``Predictor.predict``; of a
            ``StreamView`` when its answers are asked for.
    """
    _check(request)
    drift = _drift(predictor) if request.drift else None
    source = _open(predictor.package, request, stdin)
    answers = _answers(predictor.through(drift.around) if drift else predictor, source, request)
    if drift:
        answers = _concluded(answers, drift, predictor.say)
    if source.live or request.lines:
        endless = request.camera is not None and request.limit is None
        return StreamView(predictor.package, answers, request.lines, endless)
    return PredictionsView(predictor.package, tuple(answers))


def answered(
    predictor: Predictor, samples: Iterable[Sample], options: PredictOptions, batch: Optional[int] = None
) -> Iterator[Tuple[str, PredictionRow]]:
    """The name of each sample, and its answer; ``batch`` samples at a time, or as many as memory allows.

    Raises:
        InputError, BackendMissing: as ``Predictor.predict`` and ``Outputs.rows``.
    """
    task, remaining = predictor.package.task, iter(samples)
    size = batch or block_rows((*task.inputs.tensors, *task.outputs.tensors), BLOCK)
    while True:
        block = list(itertools.islice(remaining, size))
        if not block:
            return
        given = [sample.given for sample in block]
        answers = predictor.answers(predictor.run(predictor.read_all(given)), given)
        named = [sample.file_name for sample in block]
        rows = task.outputs.rows(answers, named, replace(options, given=tuple(given)))
        for i, sample in enumerate(block):
            yield sample.name, _with_frame(sample, rows[i])


def _answers(
    predictor: Predictor, source: Source, request: PredictRequest
) -> Generator[Tuple[str, PredictionRow], None, None]:
    """As ``answered``; a camera or video is closed with this generator, by whatever it ends."""
    with contextlib.closing(_chained([source])) as samples:
        some = itertools.islice(samples, request.limit)
        yield from answered(predictor, some, request.options, request.batch or (1 if source.live else None))


def _drift(predictor: Predictor) -> DriftWatch:
    from ..watching.drift import DriftOptions, DriftWatch

    def heard(report: DriftReport) -> None:
        if report.drifted:
            predictor.say(report.describe())

    return DriftWatch(predictor.package, DriftOptions(), heard)


def _concluded(
    answers: Generator[Tuple[str, PredictionRow], None, None], drift: DriftWatch, say: Callable[[str], None]
) -> Generator[Tuple[str, PredictionRow], None, None]:
    """``answers``; at their end, whatever ends them, what ``drift`` makes of all of them is said."""
    try:
        with contextlib.closing(answers):
            yield from answers
    finally:
        say(drift.conclude())


def _with_frame(sample: Sample, row: PredictionRow) -> PredictionRow:
    if sample.frame is None:
        return row
    return PredictionRow({**sample.fields, **row.data}, [str(sample.frame), *row.cells])


def _check(request: PredictRequest) -> None:
    for name, value, most in (
        ("every", request.every, None),
        ("batch", request.batch, MAX_BATCH),
        ("limit", request.limit, None),
    ):
        if value is not None and (value < 1 or (most is not None and value > most)):
            raise InputError(f"{name} is {value}; must be 1 or more{f', and at most {most}' if most else ''}")


def _open(package: Package, request: PredictRequest, stdin: Iterable[str]) -> Source:
    inputs = package.task.inputs
    if request.camera is None:
        asked = asked_inputs(package, request.inputs, request.file, stdin)
        sources = [_opened(inputs, one, request.every) for one in asked]
        live = any(source.live for source in sources)
        if request.every != 1 and not live:
            raise InputError(f"every is {request.every}, and nothing here has frames: it is for videos and cameras")
        return Source(_chained(sources), live)
    if request.inputs or request.file is not None:
        raise InputError("a camera and other inputs are there; one of them must be: call it once for each")
    opener = getattr(inputs, "open_camera", None)
    if opener is None:
        raise InputError(f"a camera gives images, and the package reads {inputs.noun}; leave --camera out")
    source: Source = opener(request.camera, request.every)
    return source


def _opened(inputs: Inputs, argument: str, every: int) -> Source:
    """What stands behind a word of the command line: itself, unless its task knows of more."""
    opener = getattr(inputs, "open_source", None)
    source: Source = opener(argument, every) if opener else Source(iter([Sample(argument, argument)]))
    return source


def _chained(sources: Sequence[Source]) -> Generator[Sample, None, None]:
    """The samples of one source after the other; when it is closed, so is the one that is read."""
    for source in sources:
        yield from source.samples
