"""Whether calibration is to blame: which ranges clip, and what ranges wide enough for the samples would win back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from dlx_deploy.debugging.answers import Bench
from dlx_deploy.debugging.sources import Made
from dlx_deploy.graph.comparison.coverage import Coverage, range_coverage, widened
from dlx_deploy.progress import Progress
from dlx_deploy.report.debug_facts import ClippedRange, RangeRemedy

__all__ = ["RangeFindings", "look_at_ranges"]

MUCH_CLIPPED = 1e-3
"""The share of an activation's values: a range from calibration leaves out one in a hundred thousand, usually."""
MANY_SAMPLES, FAR = 0.05, 0.25
"""Or so many samples have a value that lies beyond, the furthest by so many widths of the range."""
MORE = 4
"""Times as many calibration inputs."""
WHOLE = "minmax"
"""The method that cuts nothing off."""


@dataclass(frozen=True)
class RangeFindings:
    """The ranges, the worst first, and what wider ones win; ``None`` where none clips much."""

    rows: tuple[ClippedRange, ...]
    remedy: RangeRemedy | None


def look_at_ranges(
    made: Made, reference: ModelProto, written: ModelProto, bench: Bench, progress: Progress
) -> RangeFindings:
    """Of every range that the graph has.

    Raises:
        StageFailed: ONNX Runtime cannot run a graph.
    """
    found = range_coverage(reference, written, bench.labelled.samples, progress)
    narrow = [one for one in found if _clips_much(one)]
    rows = tuple(ClippedRange(**vars(one)) for one in found)
    return RangeFindings(rows, _remedy(made, written, narrow, bench) if narrow else None)


def _clips_much(one: Coverage) -> bool:
    return one.clipped >= MUCH_CLIPPED or (one.samples >= MANY_SAMPLES and one.beyond >= FAR)


def _remedy(made: Made, written: ModelProto, narrow: Sequence[Coverage], bench: Bench) -> RangeRemedy:
    """Both are run as they are written: a kernel on integers would add biases that were rounded for other scales."""
    before, after = (
        bench.score(model, what, exact=True)
        for model, what in ((written, "the ranges as they are"), (widened(written, narrow), "wider ranges"))
    )
    asked, count = made.parameters("quantize"), made.parameters("data").get("calibration_images", 0)
    lines = ["[data]", f"calibration_images = {MORE * count}"] if isinstance(count, int) and count > 0 else []
    if asked.get("calibration", WHOLE) != WHOLE:
        lines = [*lines, "[quantize]", f'calibration = "{WHOLE}"']
    won = after - before
    return RangeRemedy(tensors=tuple(one.tensor for one in narrow), won=won, lines=tuple(lines) if won > 0 else ())
