"""calibrate: how far probabilities of what is shipped are from how often they are right, and a temperature for them.

The temperature is fitted on the validation split and judged on the test split. It is found and said, not shipped:
logits in a package are those that were proven, and a device that wants calibrated probabilities divides them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Stage, Step
from dlx_deploy.runtime.words import percent
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.stages.support.training import NoParams
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of

__all__ = ["STAGE", "Calibration"]

SCHEMA = 1
FILE = "calibration.json"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """``calibration.json``. ``temperature``: what logits are divided by; ``None`` where validation gives none."""

    temperature: float | None
    validation_samples: int
    test_samples: int
    schema: int = SCHEMA


def run(job: Job[NoParams]) -> Metrics:
    """Write ``calibration.json``.

    Raises:
        ConfigError: there are no validation samples. StageFailed: answers that nothing can be said of.
    """
    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    task = task_of(data)
    device = task.device(data, (), input_dims(load(job.inputs["model"])))
    if not data.splits.get("validation"):
        raise ConfigError(
            "verify.calibration is true, and there are no validation samples to fit a temperature on; set "
            "data.validation_fraction, or verify.calibration = false"
        )
    answers = []
    for split in ("validation", "test"):
        judged = Judged(split, data.samples(split), {}, device)
        exact = job.target.judge == "exact-qdq"
        (outputs,) = statistics_of(job, job.inputs["model"], judged, [lambda given, _: dict(given)], exact)
        answers.append((outputs, data.targets(split)))
    assert task.answers.calibration is not None  # check refuses it
    found = task.answers.calibration(*answers)
    sizes = {"validation_samples": len(answers[0][1]), "test_samples": len(answers[1][1])}
    kept = Calibration(temperature=found.temperature if found else None, **sizes)
    (job.out / FILE).write_bytes(canonical_json(kept))
    measured = dataclasses.asdict(found) if found else {}
    return {**measured, **{name: float(size) for name, size in sizes.items()}}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where ``verify.calibration`` asks for it."""
    if not config.verify.calibration:
        return []
    stage = dataclasses.replace(STAGE, measures_host=profile.judge == "native")  # as evaluate's
    inputs = {"model": upstream.output("shipped"), "data": upstream.output("data")}
    step = Step("calibrate", stage, NoParams(), inputs, config.seed, notes=notes)
    return [Bound(step, Offers({"calibration": Output("calibrate", FILE)}))]


def check(setup: Setup[NoParams]) -> None:
    """Answers that have probabilities."""
    task = task_for(setup.config.data)
    if task.answers.calibration is None:
        raise ConfigError(
            f"verify.calibration is true; it is for probabilities of classes, and {task.name} has none: set false"
        )


def notes(outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What a temperature does for the probabilities."""
    samples = int(metrics["validation_samples"])
    if "temperature" not in metrics:
        return [f"no temperature can be fitted on {samples} validation samples: every answer is right, or hardly one"]
    moral = "" if metrics["ece_calibrated"] < metrics["ece"] else "; this does not help"
    before, after = (percent(metrics[key]) for key in ("ece", "ece_calibrated"))
    return [
        f"probabilities of what is shipped are {before} off on average (expected calibration error on "
        f"{int(metrics['test_samples'])} test samples), and {after} if logits are divided by "
        f"{metrics['temperature']:.3g}, which {samples} validation samples gave{moral}; the package's are as they are"
    ]


STAGE = Stage(
    name="calibrate",
    version=1,
    params=NoParams,
    inputs=("model", "data"),
    outputs=(FILE,),
    run=run,
    check=check,
    bind=bind,
    uses=("judge",),
    tools=("numpy", "onnx", "onnxruntime"),
)
