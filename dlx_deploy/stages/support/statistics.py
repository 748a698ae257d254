"""What a task makes of a model's answers to a split, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.stage import Job

if TYPE_CHECKING:
    import msgspec

    from dlx_deploy.graph.samples import Arrays, Samples
    from dlx_deploy.runtime.tasks.task import Task
    from dlx_deploy.runtime.untyped import Array

    Statistic = Callable[[Arrays, Arrays], Mapping[str, Array]]
    """Outputs and targets of the same samples to arrays by name, a row for each sample."""

__all__ = ["Judged", "statistics_of"]


@dataclass(frozen=True)
class Judged:
    """The samples of ``split``, their targets by the name on a device, and the task there."""

    split: str
    samples: Samples
    targets: Arrays
    device: Task


def statistics_of(
    job: Job[msgspec.Struct], model: Path, judged: Judged, statistics: Sequence[Statistic], exact: bool
) -> list[Arrays]:
    """Each of ``statistics`` of the outputs that ``model``, in ONNX, has for all samples, on ``job``'s threads.

    ``exact``: Q/DQ pairs are computed as they are written. Outputs are dropped batch by batch: logits of every pixel,
    for all images of a split, would fill the memory.

    Raises:
        StageFailed: the task can make nothing of an answer.
    """
    from dlx_deploy.graph.execution.evaluation import BATCH, batches_at_once, run_in_batches
    from dlx_deploy.runtime.errors import RuntimeFault
    from dlx_deploy.runtime.tasks.arrays import block_rows, count_of, joined, rows_of

    size = block_rows((*judged.device.inputs.tensors, *judged.device.outputs.tensors), BATCH)
    start, count = 0, len(judged.samples)
    # A single batch gets a single thread, as several get one each: bits are those of any number of threads.
    at_once = batches_at_once(model.read_bytes(), judged.samples, size, job.threads)
    threads = job.threads if at_once == 1 and count > size else at_once
    parts: list[list[Arrays]] = [[] for _ in statistics]
    for outputs in run_in_batches(model, judged.samples, exact, size, threads):
        rows = slice(start, start + count_of(outputs))
        job.progress(start, count, f"{count} {judged.split} inputs")
        try:
            for of_batches, statistic in zip(parts, statistics, strict=True):
                of_batches.append(dict(statistic(outputs, rows_of(judged.targets, rows))))
        except RuntimeFault as e:
            raise StageFailed(
                f"the model's answers to {judged.split} samples {rows.start} to {rows.stop - 1} cannot be judged "
                f"({e}); in half precision numbers may be too large: set quantize.precision = 'fp32', or train with a "
                "lower learning rate or more weight decay"
            ) from e
        start = rows.stop
    return [joined(part) for part in parts]
