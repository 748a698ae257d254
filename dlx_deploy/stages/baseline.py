"""baseline: the package that was released before, on the test split, sample by sample: no new one may be worse.

It needs the data alone, so one that cannot be compared is known before anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Source, Stage, Step
from dlx_deploy.stages.support.regression import BASELINE, STATISTIC, Released
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of
from dlx_deploy.tasks.grouped import grouped_targets
from dlx_deploy.tasks.judging import METRIC, asked_metric, comparison_by, judged_device, metric_file

__all__ = ["STAGE", "BaselineParams"]

TARGET = "{target}"
"""Stands in ``gate.baseline`` for the name of the target."""


class BaselineParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``metric``: by what it is judged; "": by the task's own."""

    metric: str = ""


def run(job: Job[BaselineParams]) -> Metrics:
    """Write ``baseline.json``, which package it is, and ``statistic.npz``, the task's, with a row for each sample.

    Raises:
        ConfigError: no package, or one that reads or answers something else, or that computes otherwise.
        StageFailed: as ``statistics_of``.
    """
    import numpy as np

    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.backends.kernels import missing_dot_product
    from dlx_deploy.runtime.errors import RuntimeFault
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.package.contract import contract_difference, contract_of

    try:
        package = open_package(job.inputs["package"])
    except RuntimeFault as e:
        raise ConfigError(f"gate.baseline: {e}; name a package (.dlx) that was released before") from e
    data = open_data(job.inputs["data"])
    task, exact = task_of(data), job.target.judge == "exact-qdq"
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    model = job.checkpoints / "model.onnx"
    model.write_bytes(package.model)
    device = judged_device(task, data, (), input_dims(load(model)), job.params.metric)
    named = f"gate.baseline: {package.name} {package.version} for {package.target}"
    if other := contract_difference(contract_of(device, task.inputs.preprocessing(data)), package):
        raise ConfigError(
            f"{named}: {other}; a baseline is compared answer by answer, so it must read and answer the same: name "
            "another package, or leave gate.baseline out"
        )
    if package.exact_qdq != exact:
        ways = {True: "in exact Q/DQ arithmetic", False: "with a CPU's own kernels"}
        raise ConfigError(
            f"{named}: it is judged {ways[package.exact_qdq]}, and {job.target.name} {ways[exact]}; name one for this "
            "target (gate.baseline = 'releases/{target}.dlx' has one for each)"
        )
    if wrong := missing_dot_product(package.meta):
        raise ConfigError(f"{named}: {wrong}")
    comparison, samples = comparison_by(task, job.params.metric, job.inputs.get(METRIC)), data.samples("test")
    targets = {comparison.target: data.targets("test"), **grouped_targets(task, data, "test")}
    test = Judged("test", samples, targets, device)
    (statistic,) = statistics_of(job, model, test, [device.outputs.statistic], exact)
    np.savez(job.out / STATISTIC, **statistic)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    released = Released(name=package.name, version=package.version, target=package.target, digest=package.digest)
    (job.out / BASELINE).write_bytes(canonical_json(released))
    return {f"baseline_{comparison.name}": comparison.score(statistic), "test_samples": float(len(samples))}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where ``gate.baseline`` names a package."""
    if not config.gate.baseline:
        return []
    stage = dataclasses.replace(STAGE, measures_host=profile.judge == "native")  # as evaluate's
    path = Path(config.gate.baseline.replace(TARGET, profile.name))
    params = BaselineParams(metric=asked_metric(task_for(config.data), config.gate))
    inputs: dict[str, Source] = {"package": path, "data": upstream.output("data"), **metric_file(config.gate)}
    step = Step("baseline", stage, params, inputs, config.seed)
    offers = {"baseline": Output("baseline", BASELINE), "released": Output("baseline", STATISTIC)}
    return [Bound(step, Offers(offers))]


STAGE = Stage(
    name="baseline",
    version=1,
    params=BaselineParams,
    inputs=("package", "data", METRIC),
    outputs=(BASELINE, STATISTIC),
    run=run,
    bind=bind,
    uses=("judge", "name"),
    tools=("numpy", "onnx", "onnxruntime"),
)
