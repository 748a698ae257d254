"""convert: a finished network that came as ONNX, or as a torch.export program, is the teacher.

Nothing is trained: the graph gets our border (uint8 NHWC images with their normalisation in, named outputs out), the
target's opset and an open batch, and is held against the original on real inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, Data, Export
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Source, Stage, Step, Tree
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.stages.support.exported import exported_metrics
from dlx_deploy.stages.support.operators import operator_notes, refuse_unread, teacher_verdicts
from dlx_deploy.stages.support.rehearsal import outputs_for
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.stages.teacher import notes
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset

__all__ = ["STAGE", "ConvertParams", "foreseen", "used_as_it_is"]

_ROWS = 5
"""Of noise, on which a rehearsal asks the graph."""
_USUAL = (
    "ImageNet's are data.mean = [0.485, 0.456, 0.406] and data.std = [0.229, 0.224, 0.225]; where it reads 0..1: mean "
    "0 and std 1; -1..1: mean 0.5 and std 0.5 for each channel"
)

_log = logging.getLogger(__name__)


class ConvertParams(Export, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[export]``, and of ``[teacher]`` which output answers, and the names of the classes in its order."""

    output: str = ""
    classes: tuple[str, ...] = ()


def run(job: Job[ConvertParams]) -> Metrics:
    """Write ``model.onnx``.

    Raises:
        ConfigError: the network cannot be used. StageFailed: what was made of it answers otherwise.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.export.foreign import check_adopted, read_foreign

    data = open_data(job.inputs["data"])
    task = task_of(data)
    reads = task.inputs.spec(data)
    outputs = task.answers.outputs(reads, len(data.classes))
    spec = task.inputs.export_spec(reads, job.params, job.params.opset or job.target.opset, data, outputs)
    foreign = read_foreign(job.inputs["model"], job.inputs.get("weights"), spec, job.params.output)
    names = job.params.classes or foreign.class_names(job.inputs.get("names"))
    out = job.out / MODEL
    job.progress(0, 3, f"opset {spec.opset}")
    adopted = foreign.adopted(spec, names, data.classes)
    out.write_bytes(adopted.model)
    job.progress(1, 3, "parity with the original")
    samples = data.samples("validation")[: max(job.params.parity_images, _ROWS)]
    parity = check_adopted(adopted, spec, samples, job.params.parity_tolerance)
    job.progress(2, 3, "validation")
    return {**exported_metrics(out, parity), **_validated(job, out, data)}


def _validated(job: Job[ConvertParams], path: Path, data: Dataset) -> Metrics:
    """How good its answers to the validation split are.

    Raises:
        StageFailed: nothing can be said of them.
    """
    from dlx_deploy.graph.model import input_dims, load

    comparison, samples = task_of(data).answers.comparison, data.samples("validation")
    device = task_of(data).device(data, (), input_dims(load(path)))
    targets = {comparison.target: data.targets("validation")}
    judged = Judged("validation", samples, targets, device)
    (statistic,) = statistics_of(job, path, judged, [device.outputs.statistic], exact=False)
    known = {f"validation_{name}": value for name, value in comparison.facts(targets).items()}
    score = comparison.score(statistic)
    return {f"validation_{comparison.name}": score, "validation_samples": float(len(samples)), **known}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where the teacher is a file with a finished network; the files that it needs are inputs.

    Raises:
        ConfigError: something is to be trained, or a file that belongs to the network is not there.
    """
    section = config.teacher
    if not section.is_graph:
        return []
    _refuse_training(config)
    path = Path(section.model)
    inputs: dict[str, Source] = {"model": path, "data": upstream.output("data"), **_beside(path)}
    exported = task_for(config.data).inputs.exported(config.export, profile)
    params = ConvertParams(**msgspec.structs.asdict(exported), output=section.output, classes=section.classes)
    step = Step("teacher", STAGE, params, inputs, config.seed, notes=partial(notes, config))
    return [Bound(step, Offers(candidates={"teacher": Output("teacher", MODEL)}))]


def used_as_it_is(config: Config) -> list[str]:
    """What to say before a build whose teacher is finished; nothing of another."""
    if not config.teacher.is_graph:
        return []
    name = Path(config.teacher.model).name
    what = "qat trains it" if config.qat.enabled is True else "nothing is trained"
    return [f"{name} is a finished network and used as it is: {what}, distill and prune are off"]


def foreseen(config: Config, profiles: Sequence[Profile]) -> list[str]:
    """What of an ONNX teacher's operators targets do not read, or compute wrong where no build rewrites it."""
    path = Path(config.teacher.model)
    if path.suffix.lower() != ".onnx" or not config.teacher.is_graph or not path.is_file():
        return []
    from dlx_deploy.graph.foreign.usable import usable_facts
    from dlx_deploy.runtime.hazards.operators import list_operators
    from dlx_deploy.targets.hazards import target_hazards

    usable_facts(path, texts="tokenizer" in task_for(config.data).inputs.keys)
    operators = list_operators(path.read_bytes())
    met = [(profile, found) for profile in profiles for found in target_hazards(operators, profile)]
    hazards = [
        f"{path.name} as it came, on {profile.name}, {found.describe()}"
        for profile, found in met
        if found.hazard.action != "rewrite"
    ]
    return [*operator_notes(path.name, teacher_verdicts(config, profiles)), *hazards]


def _beside(path: Path) -> dict[str, Source]:
    """The files beside a model that belong to it: weights of ONNX, and names of classes."""
    from dlx_deploy.graph.foreign.usable import external_files

    found: dict[str, Source] = {}
    if path.suffix.lower() == ".onnx" and (weights := external_files(path)):
        found["weights"] = Tree(path.parent, lambda _: weights)
    names = path.with_name("classes.txt")
    return {**found, "names": names} if names.is_file() else found


def check(setup: Setup[ConvertParams]) -> None:
    """The ``[teacher]`` table and ``[data]``, and what the file says of itself."""
    config, path = setup.config, setup.inputs["model"]
    task = task_for(config.data)
    if "tokenizer" in task.inputs.keys:
        _check_texts(setup, path)
        return
    if "mean" not in task.inputs.keys:
        raise ConfigError(
            f"teacher.model is {config.teacher.model!r}, and the data are {task.inputs.noun}; a finished graph must "
            "read images or texts: give the network by a name or as 'FILE.py:FUNCTION'"
        )
    _refuse_measured(config.data, path)
    from dlx_deploy.graph.foreign.shape import usable_ends

    usable_ends(path)


def _check_texts(setup: Setup[ConvertParams], path: Path) -> None:
    """A network that was trained with a tokenizer of its own, for texts as long as the data's may be."""
    from dlx_deploy.graph.foreign.shape import PROGRAM, usable_ends
    from dlx_deploy.graph.foreign.tokens import TokenFront, refuse_length, token_ends

    data = setup.config.data
    if path.suffix.lower() == PROGRAM:
        raise ConfigError(f"{path}: the data are texts; a torch.export program must read images: give it as ONNX")
    inputs, _ = usable_ends(path, texts=True)
    ends = token_ends(inputs, path)
    if not data.tokenizer.endswith(".json"):
        raise ConfigError(
            f"data.tokenizer is {data.tokenizer!r}, and {path.name} was trained with a tokenizer of its own, whose "
            "numbers others do not share; set data.tokenizer to its tokenizer.json (--set data.tokenizer=FILE)"
        )
    length = data.max_length if setup.params.length == "fixed" else None
    refuse_length(ends, TokenFront(data.max_length, 0, length), path)


def _refuse_training(config: Config) -> None:
    section = config.teacher
    seen = f"teacher.model is {section.model!r}, a finished graph"
    for key in ("checkpoint", "pretrained", "new_head", "arguments", "epochs"):
        if value := getattr(section, key):
            raise ConfigError(f"{seen}, and teacher.{key} is {value!r}; it is used as it is: leave that out")
    for name, taught in (("distill", config.distill), ("prune", config.prune)):
        if taught.enabled:
            raise ConfigError(
                f"{seen}, and {name}.enabled is true; no student learns from one and nothing of it is removed: leave "
                "that out, or give the network by a name or as 'FILE.py:FUNCTION'"
            )


def _refuse_measured(data: Data, path: Path) -> None:
    """A finished network was trained with a normalisation of its own: that of these images is another."""
    for key in ("mean", "std"):
        if not getattr(data, key):
            raise ConfigError(
                f"data.{key} is [], and {path.name} is used as it is, with the normalisation that it was trained with; "
                f"set data.mean and data.std to it (on the 0..1 scale), or give --normalization. {_USUAL}"
            )


def rehearse(setup: Setup[ConvertParams]) -> None:
    """The graph can be adopted, the target reads its operators, and it answers rows of noise as it would alone.

    Raises:
        ConfigError, StageFailed: it cannot, or does not.
    """
    from dlx_deploy.nn.export.foreign import check_rows, read_foreign

    data = setup.config.data
    task = task_for(data)
    if task.classes(data) is None:
        return
    reads = task.inputs.expected(data)
    opset = setup.params.opset or setup.target.opset
    spec = task.inputs.export_spec(reads, setup.params, opset, None, outputs_for(reads, data))
    foreign = read_foreign(setup.inputs["model"], setup.inputs.get("weights"), spec, setup.params.output)
    made = foreign.adopted(spec, None, ())
    refuse_unread(setup.config, setup.target, made.model, foreign.name)
    check_rows(made, spec, _ROWS)


STAGE = Stage(
    name="convert",
    version=1,
    params=ConvertParams,
    inputs=("model", "weights", "names", "data"),
    outputs=(MODEL,),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    uses=("opset",),
    tools=("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch"),
)
