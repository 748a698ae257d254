"""What the stages that train have in common: a network from its section, its data, one training run, the artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, Distill, Prune, Qat, Teacher, Training
from dlx_deploy.nn.training.views import Views
from dlx_deploy.pipeline.stage import Job, Metrics, Network, Offers, Source
from dlx_deploy.stages.support.networks import named_network
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.training.loop import RunContext
    from dlx_deploy.nn.training.losses import LossFn
    from dlx_deploy.nn.weights.network import Architecture

__all__ = [
    "TORCH_TOOLS",
    "NoParams",
    "Taught",
    "distilling",
    "logits_of",
    "new_model",
    "other_teachers",
    "run_of",
    "taught_by",
    "teachers_of",
    "train_and_save",
    "untaught",
    "use_threads",
    "views_asked",
]

TORCH_TOOLS = ("accelerate", "numpy", "safetensors", "torch", "torchvision")


class NoParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage that nothing configures."""


def new_model(job: Job[Teacher | Distill], data: Dataset) -> tuple[nn.Module, Architecture]:
    """The section's network with weights drawn from the job's seed, once it has answered what the data ask.

    Raises:
        ConfigError: the network is unknown, cannot be made or kept, or gives something else.
    """
    from dlx_deploy.nn.models.families import HF
    from dlx_deploy.nn.models.registry import build_model, check_output, is_ours, kept_arguments
    from dlx_deploy.nn.training.compute import seed_all
    from dlx_deploy.nn.weights.network import Architecture, refuse_unkeepable

    params = job.params
    name, arguments = params.model, params.arguments
    task, classes = task_of(data), len(data.classes)
    spec = task.inputs.spec(data)
    source = str(job.inputs.get("source", ""))
    arguments = kept_arguments(name, arguments, spec, source)
    if source and not name.startswith(HF):
        name = f"{source}:{name.rpartition(':')[2]}"
    seed_all(job.seed)
    model = build_model(name, arguments, classes, spec)
    check_output(model, task.answers.outputs(spec, classes), spec)
    architecture = Architecture(model=name, arguments=arguments, classes=classes, input=spec)
    if not is_ours(name):  # our own can be kept
        refuse_unkeepable(model, architecture)
    return model, architecture


def use_threads(job: Job[msgspec.Struct], data: Dataset) -> None:
    """Make torch use the configured number of threads; where it is 0, one where that is faster, else every core.

    Several processes on one machine share its cores.
    """
    from dlx_deploy.nn.training.compute import set_threads
    from dlx_deploy.runtime.machine import available_cores

    alone = task_of(data).inputs.trains_alone(data)
    set_threads(job.threads or (1 if alone else max(available_cores() // job.processes, 1)))


@dataclass(frozen=True)
class Taught:
    """What a student learns from, as inputs of its step; ``networks``: those among them that it rebuilds."""

    inputs: Mapping[str, Source]
    networks: Sequence[Network]


def views_asked(section: Distill | Prune | Qat, config: Config) -> Views | None:
    """In which views the teacher is asked of every sample once, where that is less than to ask it in each epoch.

    ``None``: it is asked as the student trains.
    """
    if isinstance(section, Distill) and section.hints:
        return None  # its layers are asked too
    task = task_for(config.data)
    views = task.inputs.views(section) if task.answers.small else None
    return views if views is not None and views.count <= section.epochs else None


def logits_of(views: Views, teacher: str = "teacher") -> str:
    """Under which name the answers of ``teacher`` in these ``views`` are offered."""
    return f"logits of {teacher} in {views}"


def taught_by(section: Distill | Prune | Qat, config: Config, upstream: Offers) -> Taught:
    """The teacher, or its answers; where there is one for each of several views they may be too many to keep."""
    teachers, views = teachers_of(section, config, upstream), views_asked(section, config)
    live = Taught({name: teacher.model for name, teacher in teachers.items()}, tuple(teachers.values()))
    if views is None or (isinstance(section, Qat) and logits_of(views) not in upstream.outputs):
        return live  # where it may be that nothing is trained, nobody asks the teacher before
    logits = {name.replace("teacher", "logits"): upstream.output(logits_of(views, name)) for name in teachers}
    return Taught(logits, ()) if views.count == 1 else Taught({**logits, **live.inputs}, live.networks)


def teachers_of(section: Distill | Prune | Qat, config: Config, upstream: Offers) -> dict[str, Network]:
    """The networks that the section learns from, by the names of inputs: ``teacher``, and others of a student."""
    others = section.teachers if isinstance(section, Distill) else ()
    named = {f"teacher-{i}": named_network(other).library for i, other in enumerate(others, 2)}
    found = {name: Network(upstream.output(name), library) for name, library in named.items()}
    return {"teacher": upstream.networks["teacher"], **found}


def other_teachers(job: Job[Distill | Prune | Qat]) -> list[nn.Module]:
    """Those beside the first that a student learns from, where they are to be asked."""
    from dlx_deploy.nn.weights.network import load_model

    return [load_model(job.inputs[name])[0] for name in sorted(job.inputs) if name.startswith("teacher-")]


def untaught(section: Distill) -> Distill:
    """``section`` as its control is trained: all but the teacher, the same for whatever a teacher would have been."""
    of_method = ("method", "temperature", "beta", "standardize", "soft_warmup")
    of_teacher = (*of_method, "hints", "hint_method", "hint_weight", "teachers", "control")
    usual = {key: getattr(Distill(), key) for key in of_teacher}
    return msgspec.structs.replace(section, alpha=0.0, **usual)


def distilling(job: Job[Distill | Prune | Qat], data: Dataset) -> LossFn:
    """The section's distillation loss: the teacher answers on the very inputs that the student sees.

    Where these are few its answers come as ``logits``. With neither it is that of the targets alone.
    """
    from dlx_deploy.nn.training.losses import distilled, distilled_from, undistilled
    from dlx_deploy.nn.weights.network import load_model

    blend = task_of(data).answers.blend(job.params, data)
    if "logits" in job.inputs:
        import numpy as np

        given = sorted(name for name in job.inputs if name.startswith("logits"))
        answers, *others = (np.load(job.inputs[name], mmap_mode="r") for name in given)
        if len(answers):
            return distilled_from(answers, blend, len(data.split("train")[1]), others)
    if "teacher" not in job.inputs:
        return undistilled(blend)
    teacher, _ = load_model(job.inputs["teacher"])
    return distilled(teacher, blend, other_teachers(job))


def run_of(job: Job[Training]) -> RunContext:
    """Where the run of ``job`` keeps its checkpoints, who watches it, and what of the network trains when."""
    from dlx_deploy.nn.training.loop import RunContext
    from dlx_deploy.nn.training.transfer import Transfer, transfer_of

    return RunContext(
        checkpoints=job.checkpoints,
        seed=job.seed,
        progress=job.progress,
        transfer=transfer_of(job.params) if isinstance(job.params, Teacher) else Transfer(),
        logs=job.logs,
        sharded=isinstance(job.params, Teacher) and job.params.sharding == "shard",
    )


_COMPARED = 16
"""Validation samples that the network and what was kept of it must answer alike to."""


def train_and_save(
    job: Job[Training],
    data: Dataset,
    model: nn.Module,
    architecture: Architecture,
    loss: LossFn,
    hooks: Hooks | None = None,
) -> Metrics:
    """Train (no epochs: only measure), write ``model``, and give the run's metrics.

    ``hooks``: what a method adds to the loop; ``None``: the task's metric alone.

    Raises:
        ConfigError: the network, built again and loaded, answers otherwise.
    """
    import numpy as np
    import torch

    from dlx_deploy.nn.training.batches import TrainData
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.training.loop import train
    from dlx_deploy.nn.weights.network import save_model

    task = task_of(data)
    learned, metric = TrainData.of(data, task.inputs.feed(data)), task.answers.metric
    report = train(model, learned, job.params, loss, run_of(job), hooks or Hooks(metric=metric))
    samples = learned.feed(torch.from_numpy(np.array(learned.validation_inputs[:_COMPARED])))
    save_model(job.out / "model", model, architecture, samples)
    metrics = {
        f"validation_{metric.name}": report.last_score,
        "epochs": float(report.epochs),
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }
    if report.epochs:
        job.keep_curves({"loss": report.losses, f"validation_{metric.name}": report.scores})
        metrics |= {"loss": report.losses[-1], "samples_per_s": report.samples_per_s, "data_share": report.data_share}
    return metrics
