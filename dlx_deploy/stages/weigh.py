"""weigh: what a search's trial came to, of the model that would be shipped: validation score, latency, size.

What it writes has the form of what ``verify`` writes, of another split.
"""

from __future__ import annotations

import msgspec

from dlx_deploy.config import Verify
from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.judging import estimated, read_statistic, row_of, timings_of
from dlx_deploy.stages.support.results import MEASURED, Latencies
from dlx_deploy.tasks import task_of
from dlx_deploy.tasks.judging import METRIC, comparison_by, watched
from dlx_deploy.tasks.verification import REFERENCE, Accuracy

__all__ = ["SHIPPED", "STAGE", "WeighParams", "Weighed"]

SHIPPED = "shipped"
"""The candidate that is weighed."""


class WeighParams(Verify, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys; ``metric``: by what; "": by the task's own. ``energy``: measured too."""

    metric: str = ""
    energy: bool = False


class Weighed(msgspec.Struct, frozen=True):
    """``energy.json``: the millijoules of an inference beyond idle; ``None``: not asked for."""

    per_inference_mj: float | None = None


def run(job: Job[WeighParams]) -> Metrics:
    """Write ``accuracy.json``, ``latency.json``, ``energy.json``: both models by score, the shipped one by the rest."""
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    comparison = watched(comparison_by(task_of(data), job.params.metric, job.inputs.get(METRIC)), job.progress)
    targets = data.targets("validation")
    statistics = {
        REFERENCE: read_statistic(job.inputs["teacher-score"]),
        SHIPPED: read_statistic(job.inputs["shipped-score"]),
    }
    accuracy = Accuracy(
        metric=comparison.name,
        title=comparison.title,
        judge=job.target.judge,
        n=len(targets),
        shipped=SHIPPED,
        rows=tuple(row_of(name, job.inputs[name], comparison, statistics) for name in statistics),
        facts=comparison.facts({comparison.target: targets}),
    )
    latencies, energy = _latencies(job), Weighed(_energy_mj(job) if job.params.energy else None)
    (job.out / "accuracy.json").write_bytes(canonical_json(accuracy))
    (job.out / "latency.json").write_bytes(canonical_json(latencies))
    (job.out / "energy.json").write_bytes(canonical_json(energy))
    return {
        f"validation_{accuracy.metric}": accuracy.row(SHIPPED).score,
        "latency_p50_ms": latencies.rows[0].p50_ms,
        "size_bytes": float(accuracy.row(SHIPPED).size_bytes),
        **({} if energy.per_inference_mj is None else {"energy_mj": energy.per_inference_mj}),
    }


def _energy_mj(job: Job[WeighParams]) -> float:
    """Of the shipped model.

    Raises:
        StageFailed: it cannot be measured.
    """
    from dlx_deploy.nn.data.dataset import open_data

    if job.device is None:
        raise StageFailed("energy is not measured: the target cannot be reached from here; set search.choose")
    sample = open_data(job.inputs["data"]).samples("validation")[:1]
    seen = job.device.energy(job.inputs[SHIPPED], sample, job.params.threads)
    if seen.energy is None:
        raise StageFailed(f"energy is not measured: {seen.why}; set search.choose, or have it measured")
    return seen.energy.per_inference_mj


def _latencies(job: Job[WeighParams]) -> Latencies:
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.timing.sampling import BUILD_PACE, Sampling

    models = {SHIPPED: job.inputs[SHIPPED]}
    if job.device is None:
        return estimated(models, job.target)
    sample = open_data(job.inputs["data"]).samples("validation")[:1]
    sampling = Sampling(job.params.rounds, pace=BUILD_PACE, max_s=job.params.max_seconds)
    timed = job.device.latencies(models, sample, sampling, job.params.threads, job.progress).latencies
    return Latencies(kind=MEASURED, where=job.device.name, rows=timings_of(timed))


STAGE = Stage(
    name="weigh",
    version=3,
    params=WeighParams,
    inputs=("teacher", "shipped", "teacher-score", "shipped-score", "data", METRIC),
    outputs=("accuracy.json", "energy.json", "latency.json"),
    run=run,
    uses=("judge", "kind", "arch", "device_tree_model", "title", "name", "roofline", "power_mode", "precisions"),
    tools=("numpy", "onnx", "onnxruntime"),
    measures_host=True,
    times_host=True,
)
