"""A package and the network that it was made of, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dlx_deploy.debugging.answers import Bench, Labelled, read_labelled
from dlx_deploy.debugging.flips import chance_note, confusions, flips_between
from dlx_deploy.debugging.layers import NOISE_SAMPLES, LayerFindings, look_at_layers
from dlx_deploy.debugging.ranges import look_at_ranges
from dlx_deploy.debugging.reading import look_at_reading
from dlx_deploy.debugging.sources import Made, find_reference, no_data, open_made, stored_data
from dlx_deploy.delivery import labelled_data
from dlx_deploy.graph.model import load
from dlx_deploy.progress import Progress, silent
from dlx_deploy.report.debug_facts import StageScore
from dlx_deploy.report.debug_files import check_folder, write_files
from dlx_deploy.report.debugging import DebugView
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.tasks import find_task

__all__ = ["MOST_SAMPLES", "TRIED", "Debugged", "debug_package"]

TRIED = 8
"""Layers that are restored, the noisiest first: each takes a run over all samples."""
MOST_SAMPLES = 2000
"""A standard error of at most 1.1 points, of differences between two graphs far less."""


@dataclass(frozen=True)
class Debugged:
    """What is asked for: the ``package``; ``data`` ("": the build's test split) and ``reference`` (``None``: that of
    the build), both out of the ``store``; how many ``layers`` are restored, and at most how many ``samples`` (0: all).
    ``metric``: where the function is that the gate judged by, if that was a user's.
    ``out``: the folder for pictures and all else as files.
    """

    package: Path
    store: Path
    data: str = ""
    reference: Path | None = None
    layers: int = TRIED
    samples: int = MOST_SAMPLES
    metric: str = ""
    out: Path | None = None


def debug_package(asked: Debugged, progress: Progress = silent) -> DebugView:
    """Both graphs on the same samples: what they score, where noise comes from, which ranges clip.

    Raises:
        ConfigError: the graph in floating point or the data are not to be had, or do not fit the package.
        RuntimeFault: the package or the samples cannot be read. StageFailed: a graph cannot be run.
    """
    made = open_made(asked.package)
    if asked.out is not None:
        check_folder(asked.out)
    reference = find_reference(made, asked.store, asked.reference)
    package, stored = made.package, stored_data(made, asked.store)
    if not asked.data and stored is None:
        raise no_data(made, asked.store)
    with labelled_data(asked.data or str(stored), asked.package) as folder:
        labelled = read_labelled(package, str(folder), asked.samples)
        bench = Bench(package, labelled, asked.metric, progress)
        reading, compared = look_at_reading(made, reference.model, bench, stored)
    written = load(package.model)
    plain = bench.answered(reference.model, "the network in floating point")
    packed = bench.answered(written, "the package")
    score = packed.score
    found = look_at_layers(made, reference.model, bench, (plain.score, score), asked.layers, progress)
    ranges = look_at_ranges(made, reference.model, written, bench, progress)
    told = plain.told and packed.told and (plain.told, packed.told)
    flips = flips_between(*told, labelled) if told else ()
    view = DebugView(
        package=str(asked.package),
        name=f"{package.name} {package.version}",
        target=str(package.meta["target"].get("title", package.target)),
        task=package.task.name,
        noun=package.task.inputs.noun,
        metric=bench.comparison.name,
        title=bench.comparison.title,
        reference=reference.where,
        data_path=asked.data or "the build's test split",
        samples=len(labelled.samples),
        given=labelled.given,
        noise_samples=min(len(labelled.samples), NOISE_SAMPLES),
        reference_score=plain.score,
        score=score,
        answers_db=found.answers_db,
        stages=tuple(_stages(made)),
        reading=reading,
        compared=compared,
        layers=found.rows,
        remedy=found.remedy,
        ranges=ranges.rows,
        range_remedy=ranges.remedy,
        flips=flips,
        confusion=confusions(*told) if told else (),
        notes=tuple(filter(None, [bench.note, *bench.faults, _note(plain.score - score, found), chance_note(flips)])),
    )
    if asked.out is not None:
        write_files(asked.out, view, _pictures(package, labelled))
    return view


def _pictures(package: Package, labelled: Labelled) -> Callable[[int], bytes | None]:
    """What draws a sample, where it can be drawn."""
    draw = getattr(find_task(package.task.name).inputs, "picture", None)  # texts cannot, nor what others bring
    inputs, feeds = package.task.inputs, dict(labelled.samples.arrays)
    return lambda number: None if draw is None else draw(inputs, feeds, number)


def _stages(made: Made) -> Sequence[StageScore]:
    """What the build's own verification says; nothing in a package made by other means."""
    rows = made.package.meta["accuracy"].get("rows", ())
    try:
        return msgspec.convert([{"model": r["model"], "score": r["score"]} for r in rows], list[StageScore])
    except (msgspec.ValidationError, TypeError, KeyError):
        return ()


def _note(lost: float, found: LayerFindings) -> str:
    """What to make of the layers."""
    if not found.rows:
        return (
            "no layer is compressed, or both graphs have none of the same name: what was lost was lost in other stages "
            "(distillation, pruning); 'in the build' says where"
        )
    if lost <= 0:
        return "nothing is lost on these samples: the package is as good as its network in floating point"
    if found.remedy is None:
        return (
            "no layer alone wins back a tenth of what was lost; it is spread over many. Let a build find how many "
            "must be restored (quantize.max_drop), or have better integers (quantize.effort = 'best')"
        )
    return ""
