"""export: the network as ONNX (images or tokens in, named outputs), checked against torch on real inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Config, Export
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.stages.support.exported import exported_metrics
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.training import TORCH_TOOLS, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.targets.opsets import OLDEST
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STAGE"]

NEIGHBOURS = 8
"""Parity looks at so many rows at least: whether one's answer depends on others shows with others alone."""

_log = logging.getLogger(__name__)


def run(job: Job[Export]) -> Metrics:
    """Write ``model.onnx``.

    Raises:
        StageFailed: an operator cannot be expressed at the opset, or ONNX Runtime and torch disagree.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.export.network import export_onnx
    from dlx_deploy.nn.export.parity import check_parity
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, _ = load_model(job.inputs["model"])
    task, opset = task_of(data), job.params.opset or job.target.opset
    reads = task.inputs.spec(data)
    spec = task.inputs.export_spec(reads, job.params, opset, data, task.answers.outputs(reads, len(data.classes)))
    out = job.out / MODEL
    job.progress(0, 0, f"opset {spec.opset}")
    export_onnx(model, out, spec)
    job.progress(0, 0, "parity with torch")
    samples = data.samples("validation")[: max(job.params.parity_images, NEIGHBOURS)]
    parity = check_parity(out, model, spec, samples, job.params.parity_tolerance)
    if parity.vacuous:
        same = " and ".join(parity.vacuous)
        _log.warning("parity of %s says nothing: torch gives the same %s for every input", job.inputs["model"], same)
    return exported_metrics(out, parity)


def _sparsity(path: Path, model: nn.Module) -> Metrics:
    """How many layers are 2:4, where the network has some; all of its are."""
    from dlx_deploy.graph.analysis.sparsity import check_sparse_modules
    from dlx_deploy.graph.model import load
    from dlx_deploy.nn.pruning.sparsity import two_four_modules

    modules = two_four_modules(model)
    return {"two_four_layers": float(check_sparse_modules(load(path), modules))} if modules else {}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """A step for each network that is not exported yet; its ONNX is a candidate of the same name."""
    return [
        _bound(name, network, config, profile, upstream)
        for name, network in upstream.networks.items()
        if name not in upstream.candidates
    ]


def _bound(name: str, network: Network, config: Config, profile: Profile, upstream: Offers) -> Bound:
    params = task_for(config.data).inputs.exported(config.export, profile)
    inputs = {"model": network.model, "data": upstream.output("data")}
    step = Step(f"export-{name}", rebuilding(STAGE, (network,)), params, inputs, config.seed)
    return Bound(step, Offers(candidates={name: Output(step.name, MODEL)}))


def check(setup: Setup[Export]) -> None:
    """The ``[export]`` table: an opset that can be written and that the target's parser reads."""
    opset, newest = setup.params.opset, setup.target.opset
    if opset and not OLDEST <= opset <= newest:
        raise ConfigError(
            f"export.opset is {opset}; rule: {OLDEST} to {newest}, the newest that {setup.target.name} reads; "
            "set 0 for that one, or opset in a board.toml of your own if its parser reads more"
        )
    task_for(setup.config.data).inputs.check_export(setup.config.export, setup.config.data.kind)


STAGE = Stage(
    name="export",
    version=5,
    params=Export,
    inputs=("model", "data"),
    outputs=(MODEL,),
    run=run,
    check=check,
    bind=bind,
    uses=("opset",),
    tools=(*TORCH_TOOLS, "onnx", "onnxruntime", "onnxscript"),
)
