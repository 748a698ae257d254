"""distill: a smaller student that learns from the teacher's answers (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dlx_deploy.config import Config, Distill
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.networks import named_network, rebuilding
from dlx_deploy.stages.support.rehearsal import rehearse_network, rehearse_training
from dlx_deploy.stages.support.sizes import larger_student
from dlx_deploy.stages.support.training import (
    TORCH_TOOLS,
    distilling,
    new_model,
    taught_by,
    train_and_save,
    use_threads,
)
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for

__all__ = ["STAGE"]

log = logging.getLogger(__name__)


def run(job: Job[Distill]) -> Metrics:
    """Write ``model``.

    Raises:
        ConfigError: the network cannot be made. StageFailed: training diverged.
    """
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = new_model(job, data)
    return train_and_save(job, data, model, architecture, distilling(job, data))


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where the section is enabled; the user's file that it names becomes an input."""
    if not config.distill.enabled:
        return []
    named, taught = named_network(config.distill), taught_by(config.distill, config, upstream)
    inputs = {"data": upstream.output("data"), **taught.inputs, **named.files}
    stage = rebuilding(STAGE, taught.networks, named.library)
    step = Step("distill", stage, named.section, inputs, config.seed)
    return [Bound(step, Offers(networks={"student": Network(Output("distill", "model"), named.library)}))]


def check(setup: Setup[Distill]) -> None:
    """The ``[distill]`` table: its network."""
    from dlx_deploy.nn.models.names import check_name

    task = task_for(setup.config.data)
    check_name("distill", setup.config.distill.model, task.inputs.reads, task.answers.gives, setup.inputs)
    check_training("distill", setup.config.distill, setup.config.data)


def rehearse(setup: Setup[Distill]) -> None:
    """The student can be built, and trained as its section says; one that is not smaller than its teacher is said.

    Raises:
        ConfigError: unknown network or arguments, or no logits. EnvironmentMissing: an extra or a GPU is not here.
    """
    rehearse_training(setup.config.distill)
    rehearse_network(setup.config.distill, setup)
    if larger := larger_student(setup.config):
        log.warning("%s", larger)


STAGE = Stage(
    name="distill",
    version=4,
    params=Distill,
    inputs=("data", "source", "teacher", "logits"),
    outputs=("model",),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    distributed=True,
    tools=TORCH_TOOLS,
)
