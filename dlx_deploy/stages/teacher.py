"""teacher: the network to learn from, trained here or loaded from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as replace_in
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dlx_deploy.config import Config, Gate, Teacher
from dlx_deploy.nn.models.families import HF
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Source, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.networks import named_network, rebuilding
from dlx_deploy.stages.support.rehearsal import rehearse_network, rehearse_training
from dlx_deploy.stages.support.training import TORCH_TOOLS, new_model, train_and_save, use_threads
from dlx_deploy.stages.support.weights import (
    WEIGHTS,
    check_weights,
    keys_called,
    load_weights,
    named_weights,
    rehearse_weights,
)
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of
from dlx_deploy.tasks.judging import validation_notes
from dlx_deploy.tasks.preprocessing import preprocessing_notes, preprocessing_parity

__all__ = ["STAGE"]


def run(job: Job[Teacher]) -> Metrics:
    """Write ``model``.

    Raises:
        ConfigError: the network, or a checkpoint that does not fit it. StageFailed: training diverged.
        EnvironmentMissing: pretrained weights cannot be had here, or the device lacks the precision.
    """
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = new_model(job, data)
    load_weights(job, data, model, architecture)
    task = task_of(data)
    metrics = train_and_save(job, data, model, architecture, task.answers.supervised(job.params, data))
    comparison, targets = task.answers.comparison, data.targets("validation")
    facts = comparison.facts({comparison.target: targets})
    known = {f"validation_{name}": value for name, value in facts.items()}
    parity = preprocessing_parity(task, _as_given(job), data, model)
    return {**metrics, "validation_samples": float(len(targets)), **known, **parity}


def _as_given(job: Job[Teacher]) -> Teacher:
    """The section with its files where they lie here."""
    section = job.params
    if "source" in job.inputs and section.model.startswith(HF):
        section = replace(section, model=f"{HF}{job.inputs['source']}")
    return replace(section, checkpoint=str(job.inputs["checkpoint"])) if "checkpoint" in job.inputs else section


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, unless the network is finished, and one for each other that a student learns from.

    Those are offered as outputs: nothing is made from them and nothing is held against them.
    """
    others = config.distill.teachers if config.distill.enabled else ()
    bound = []
    for i, section in enumerate(others):
        step, _ = _step(f"teacher-{i + 2}", section, config, upstream, i + 1)
        held = replace_in(STAGE, check=partial(_of_other, i, check), rehearse=partial(_of_other, i, rehearse))
        step = replace_in(step, stage=replace_in(held, tools=step.stage.tools), notes=partial(_other_notes, config))
        bound.append(Bound(step, Offers(outputs={step.name: Output(step.name, "model")})))
    if config.teacher.is_graph:
        return bound
    step, library = _step("teacher", config.teacher, config, upstream, 0)
    step = replace_in(step, notes=partial(notes, config))
    return [Bound(step, Offers(networks={"teacher": Network(Output("teacher", "model"), library)})), *bound]


def _step(name: str, section: Teacher, config: Config, upstream: Offers, number: int) -> tuple[Step, str]:
    """The step and the library of its network; the files that the section names become inputs.

    Teachers of one network and other numbers begin with other weights.
    """
    named = named_network(section)
    section, weights = named_weights(named.section)
    inputs: dict[str, Source] = {"data": upstream.output("data"), **named.files, **weights}
    stage = rebuilding(STAGE, (), named.library)
    return Step(name, stage, section, inputs, (config.seed + number) % 2**63), named.library


def _of_other(number: int, check: Callable[[Setup[Teacher]], None], setup: Setup[Teacher]) -> None:
    """``check`` of one of the teachers beside the first, whose keys are called otherwise."""
    section = setup.config.distill.teachers[number]
    config = replace(setup.config, teacher=section)
    with keys_called(f"distill.teachers[{number}]"):
        check(replace_in(setup, config=config))


def check(setup: Setup[Teacher]) -> None:
    """The ``[teacher]`` table: its network, and where its weights come from."""
    section = setup.config.teacher
    from dlx_deploy.nn.models.names import check_name

    task = task_for(setup.config.data)
    check_name("teacher", section.model, task.inputs.reads, task.answers.gives, setup.inputs)
    check_training("teacher", section, setup.config.data)
    check_weights(section)


def rehearse(setup: Setup[Teacher]) -> None:
    """The teacher can be built, trained as its section says, and filled from its checkpoint.

    Raises:
        ConfigError: unknown network or arguments, no logits, or weights that do not fit.
        EnvironmentMissing: an extra or a GPU is not here.
    """
    from dlx_deploy.nn.training.transfer import transfer_of

    section = setup.config.teacher
    rehearse_training(section)
    transfer_of(section)
    rehearse_network(section, setup)
    rehearse_weights(section, setup)


def notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What the validation split already says of the gates, and how preprocessing compares."""
    said = validation_notes(task_for(config.data), config.gate, metrics)
    return (*said, *preprocessing_notes(metrics))


def _other_notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Of a teacher beside the first: whether it has anything to say; no gate asks."""
    if not task_for(config.data).answers.comparison.teacher_notes(Gate(), metrics):
        return []
    return [
        "on the validation split this teacher is not clearly better than one answer to everything, and a student "
        "learns that as well: train it further, or leave it out of distill.teachers"
    ]


STAGE = Stage(
    name="teacher",
    version=4,
    params=Teacher,
    inputs=("data", "source", *WEIGHTS),
    outputs=("model",),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    distributed=True,
    tools=TORCH_TOOLS,
)
