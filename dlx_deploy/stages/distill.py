"""distill: a smaller student that learns from the teacher's answers (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as changed

from dlx_deploy.config import Config, Distill
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.hints import hinting, rehearse_hints
from dlx_deploy.stages.support.networks import named_network, rebuilding
from dlx_deploy.stages.support.rehearsal import rehearse_network, rehearse_training
from dlx_deploy.stages.support.sizes import larger_student
from dlx_deploy.stages.support.training import (
    TORCH_TOOLS,
    distilling,
    new_model,
    taught_by,
    train_and_save,
    untaught,
    use_threads,
)
from dlx_deploy.stages.support.weights import (
    WEIGHTS,
    check_weights,
    keys_called,
    load_weights,
    named_weights,
    rehearse_weights,
)
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.verification import CONTROL, STUDENT

__all__ = ["STAGE"]

log = logging.getLogger(__name__)


def run(job: Job[Distill]) -> Metrics:
    """Write ``model``. Without a teacher or its answers it learns from the targets alone.

    Raises:
        ConfigError: the network cannot be made, begin with the weights that it is given, or its layers not be held to
            the teacher's.
        EnvironmentMissing: pretrained weights cannot be had here.
        StageFailed: training diverged.
    """
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = new_model(job, data)
    with keys_called("distill"):
        load_weights(job, data, model, architecture)
    if job.params.hints:
        loss, hooks = hinting(job, data, model)
        return train_and_save(job, data, model, architecture, loss, hooks)
    return train_and_save(job, data, model, architecture, distilling(job, data))


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """A step where the section is enabled, before it one of the control; the user's file of the network is an input.

    The control comes first, as what follows is made from the last network.
    """
    if not config.distill.enabled:
        return []
    named, taught = named_network(config.distill), taught_by(config.distill, config, upstream)
    section, weights = named_weights(named.section)
    own = {"data": upstream.output("data"), **named.files, **weights}
    section = changed(section, control=False, teachers=())
    stage = rebuilding(STAGE, taught.networks, named.library)
    stage = replace(stage, inputs=tuple(dict.fromkeys((*stage.inputs, *taught.inputs))))
    student = Step("distill", stage, section, {**own, **taught.inputs}, config.seed)
    alone = replace(rebuilding(STAGE, (), named.library), check=None, rehearse=None)  # the student's say the same
    control = Step("distill-control", alone, untaught(section), own, config.seed)
    steps = {CONTROL: control, STUDENT: student} if config.distill.control else {STUDENT: student}
    return [
        Bound(step, Offers(networks={name: Network(Output(step.name, "model"), named.library)}))
        for name, step in steps.items()
    ]


def check(setup: Setup[Distill]) -> None:
    """The ``[distill]`` table: its network, and where its weights come from."""
    from dlx_deploy.nn.models.names import check_name

    task = task_for(setup.config.data)
    check_name("distill", setup.config.distill.model, task.inputs.reads, task.answers.gives, setup.inputs)
    with keys_called("distill"):
        check_weights(setup.config.distill)
    check_training("distill", setup.config.distill, setup.config.data)


def rehearse(setup: Setup[Distill]) -> None:
    """The student can be built, and trained as its section says; one that is not smaller than its teacher is said.

    Raises:
        ConfigError: unknown network or arguments, no logits, or weights that do not fit.
        EnvironmentMissing: an extra or a GPU is not here.
    """
    rehearse_training(setup.config.distill)
    rehearse_network(setup.config.distill, setup)
    with keys_called("distill"):
        rehearse_weights(setup.config.distill, setup)
    rehearse_hints(setup.config)
    if larger := larger_student(setup.config):
        log.warning("%s", larger)


STAGE = Stage(
    name="distill",
    version=4,
    params=Distill,
    inputs=("data", "source", *WEIGHTS, "teacher", "logits"),
    outputs=("model",),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    distributed=True,
    tools=TORCH_TOOLS,
)
