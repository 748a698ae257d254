"""Weights that a network begins with: a checkpoint of the user's, or those that its library has for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from dlx_deploy.config import Distill, Teacher
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.nn.models.families import family_of, is_user
from dlx_deploy.pipeline.stage import Job, Setup, Source
from dlx_deploy.stages.support.rehearsal import built_network
from dlx_deploy.tasks import task_for

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.weights.network import Architecture

__all__ = ["WEIGHTS", "check_weights", "keys_called", "load_weights", "named_weights", "rehearse_weights"]

S = TypeVar("S", Teacher, Distill)

WEIGHTS = ("checkpoint", "names")
"""What the inputs of a step are called that hold them, and the names of a network's outputs."""


def named_weights(section: S) -> tuple[S, dict[str, Source]]:
    """``section`` without the path of its checkpoint, and the files that it names as inputs."""
    if not section.checkpoint:
        return section, {}
    path = Path(section.checkpoint)
    inputs: dict[str, Source] = {"checkpoint": path}
    beside = path.with_name("config.json")
    if beside.is_file():  # Hugging Face and timm name the outputs there
        inputs["names"] = beside
    return replace(section, checkpoint=path.suffix), inputs


def load_weights(job: Job[Teacher | Distill], data: Dataset, model: nn.Module, architecture: Architecture) -> None:
    """Give ``model`` what the section names, its outputs in the order of the data's classes; nothing if it names none.

    Raises:
        ConfigError: they do not fit the network, or tell other classes apart.
        EnvironmentMissing: pretrained weights cannot be had here.
    """
    from dlx_deploy.nn.models.pretrained import pretrained_state
    from dlx_deploy.nn.training.transfer import load_with_new_head
    from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint
    from dlx_deploy.nn.weights.class_match import same_classes
    from dlx_deploy.nn.weights.class_order import class_names, keep_class_order, named_by_config

    section = job.params
    if "checkpoint" in job.inputs:
        path = job.inputs["checkpoint"]
        load = load_with_new_head if section.new_head else load_into
        load(model, read_checkpoint(path, section.checkpoint_key), path)
        if not section.new_head:
            names = list(section.classes) or class_names(path)
            names = names or class_names(job.inputs.get("names")) or named_by_config(architecture.arguments)
            keep_class_order(model, architecture.input, names, data.classes, path.name)
    elif section.pretrained:
        reads, source = architecture.input.reads, job.inputs.get("source")
        origin, state = pretrained_state(section.model, section.pretrained, source, reads)
        names = named_by_config(architecture.arguments)
        if section.new_head or not same_classes(names, data.classes):
            load_with_new_head(model, state, origin)
        else:  # a finished classifier of these classes
            load_into(model, state, origin)
            keep_class_order(model, architecture.input, names, data.classes, section.model)


def check_weights(section: Teacher | Distill) -> None:
    """The network's library has such weights for it, if the section asks for any.

    Raises:
        ConfigError: it has not.
    """
    if not section.pretrained:
        return
    family = family_of(section.model)
    if is_user(section.model) or (family and not family.weights):
        raise ConfigError(
            f"teacher.pretrained is {section.pretrained!r}; {section.model!r} has no weights of that kind; give a file "
            "as teacher.checkpoint"
        )
    if family and family.prefix and section.pretrained != "DEFAULT":
        raise ConfigError(f"teacher.pretrained is {section.pretrained!r}; for {section.model!r} it must be 'DEFAULT'")


def rehearse_weights(section: Teacher | Distill, setup: Setup[S]) -> None:
    """The section's checkpoint, where it has one, fits its network for as many classes as the data have.

    Raises:
        ConfigError: it does not.
    """
    from dlx_deploy.nn.training.transfer import load_with_new_head
    from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint

    if "checkpoint" not in setup.inputs or task_for(setup.config.data).classes(setup.config.data) is None:
        return
    path = setup.inputs["checkpoint"]
    model, _ = built_network(section, setup.config.data)
    load = load_with_new_head if section.new_head else load_into
    load(model, read_checkpoint(path, section.checkpoint_key), path)


@contextmanager
def keys_called(where: str) -> Iterator[None]:
    """What is said of a key of ``[teacher]`` is said of the same key of ``where``, whose keys are called otherwise.

    Raises:
        ConfigError: the one that was raised within, in those words; and so ``EnvironmentMissing``.
    """
    try:
        yield
    except (ConfigError, EnvironmentMissing) as e:
        keys = "|".join(Teacher.__struct_fields__)
        raise type(e)(re.sub(rf"(?<![\w./])teacher\.(?=(?:{keys})\b)", f"{where}.", str(e))) from e
