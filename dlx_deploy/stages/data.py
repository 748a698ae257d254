"""data: images decoded and resized, or texts tokenized, once, split into train, calibration, validation and test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dlx_deploy.config import Config, Data, Training
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.catalogue_checks import check_layout
from dlx_deploy.nn.data.slices import SLICES, read_slices, slice_sizes
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Stage, Step
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import check_keys, check_offered, kinds_with_a_path, prepare, task_for
from dlx_deploy.tasks.grouped import draws_groups, group_notes, refuse_sure
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.slices import check_slices, refuse_unknown, slice_notes

__all__ = ["STAGE"]

_KEYS = {"tokenizer": "tokenizer", "classes": "classes", "root": "root"}
"""The key of ``[data]`` that names an input; every other is that of ``data.path``."""


def run(job: Job[Data]) -> Metrics:
    """Write the data artifact; the user's files are inputs, by the keys that name them."""
    given = {_KEYS.get(name, "path"): str(path) for name, path in job.inputs.items()}
    return prepare(replace(job.params, **given), job.out / "data", job.seed, job.progress)


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, whose parameters are the section without what is bound as a file."""
    given = config.data.tokenizer.endswith(".json")
    classes = f"given{Path(config.data.classes).suffix}" if config.data.classes else ""
    tokenizer = "given.json" if given else config.data.tokenizer
    params = replace(config.data, path="", root="", classes=classes, tokenizer=tokenizer)
    task = task_for(config.data)
    files = task.files(config.data)
    made = {"data": "data", **({"slices": SLICES} if config.data.slices else {})}
    stage = dataclasses.replace(STAGE, inputs=tuple(files), tools=task.tools(config.data))
    step = Step(
        name="data",
        stage=dataclasses.replace(stage, outputs=tuple(made.values())),
        params=params,
        inputs=files,
        seed=config.seed,
        gates=partial(refuse_data, config),
        notes=partial(notes, config),
    )
    return [Bound(step, Offers({offer: Output("data", file) for offer, file in made.items()}))]


def check(setup: Setup[Data]) -> None:
    """The ``[data]`` table: keys that belong to another kind, sizes that are missing."""
    data = setup.config.data
    task = task_for(data)
    if (own := task.kinds[data.kind]) and data.path:
        theirs = " or ".join(repr(kind) for kind in kinds_with_a_path())
        raise ConfigError(
            f"data.path is {data.path!r}, and data.kind {data.kind!r} takes none: it is {own}; set data.kind to "
            f"{theirs}, or leave the path out"
        )
    check_offered(data, task)
    check_keys(data, task)
    check_layout(data)
    if data.use == "evaluation" and setup.config.trains:
        raise ConfigError(
            "data.use is 'evaluation', and a network is trained or pruned; set teacher.epochs = 0, distill.enabled = "
            "false, prune.enabled = false and qat.enabled = false, or leave data.use out"
        )
    task.inputs.check(data)
    check_slices(data, setup.config.gate)


def refuse_data(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> tuple[()]:
    """Nothing, once the data are there, if they are what budgets and networks that will be trained ask for.

    Raises:
        DataError: a batch is larger than the training split; the section is named.
        ConfigError: a budget is of a slice that the test split has not, or surer than groups of samples can tell.
    """
    task = task_for(config.data)
    if draws_groups(task) and metrics.get("test_groups", math.inf) < metrics.get(f"test_{task.inputs.noun}", 0):
        refuse_sure(config.gate)
    if config.gate.slices and SLICES in outputs:
        refuse_unknown(config.gate, list(slice_sizes(read_slices(outputs[SLICES]))))
    return refuse_large_batches(config, outputs, metrics)


def refuse_large_batches(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> tuple[()]:
    """Nothing, once the data are there, if each network that will be trained finds a batch of samples.

    Raises:
        DataError: a batch is larger than the training split; the section is named.
    """
    inputs = task_for(config.data).inputs
    count = metrics.get(f"train_{inputs.noun}")
    trained: list[tuple[str, Training]] = [("teacher", config.teacher)]
    trained += [("distill", config.distill)] if config.distill.enabled else []
    trained += [("prune", config.prune)] if config.prune.enabled else []
    trained += [("qat", config.qat)] if config.qat.enabled is True else []
    for name, section in trained:
        if count is not None and section.epochs:
            inputs.check_samples(name, section, int(count))
    return ()


def notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Each budget that the test split is too small for, whatever is built from it."""
    task = task_for(config.data)
    count = int(metrics.get(f"test_{task.inputs.noun}", 0))
    comparison = comparison_by(task, config.gate.metric)
    said = comparison.split_notes(config.gate, count, metrics)
    groups = int(metrics.get("test_groups", count))
    if SLICES in outputs:
        said = [*said, *slice_notes(comparison, config.gate, slice_sizes(read_slices(outputs[SLICES])))]
    return [*said, *(group_notes(task, config.gate, count, groups) if groups < count else [])]


STAGE = Stage(
    name="data",
    version=6,
    params=Data,
    inputs=("images", "list", "root", "classes", "texts", "tokenizer"),
    outputs=("data",),
    run=run,
    check=check,
    bind=bind,
    tools=("numpy",),
)
