"""What of a configuration can only be known with torch, and takes seconds: said before hours of work, not after.

Networks are built on the meta device, where nothing is allocated and nothing is computed. It knows less than a real
one, so it can only say yes: where it does not, the network is built for real, and what that says is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dlx_deploy.config import Config, Data, Distill, Qat, Quantize, Teacher, Training
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.tasks import task_for

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.models.inputs import InputSpec
    from dlx_deploy.nn.models.outputs import Outputs

__all__ = [
    "built_network",
    "is_unknown",
    "outputs_for",
    "rehearse_learning",
    "rehearse_network",
    "rehearse_quantize",
    "rehearse_training",
    "smallest_network",
    "untrained",
]

P = TypeVar("P", bound=msgspec.Struct)
_ROWS = 3
"""A user's network is asked for so many answers, and for each alone."""
_SOME_CLASSES = 10
"""Where only the texts themselves will say how many there are."""


def rehearse_quantize(setup: Setup[Quantize]) -> None:
    """What ``quantize.exclude`` and ``quantize.plan`` name is there: a pruned and trained network has the same names.

    Raises:
        ConfigError: a pattern matches no layer, or the plan names a layer or a tensor that the graph has not.
    """
    if not (setup.params.exclude or "plan" in setup.inputs) or is_unknown(setup.config):
        return
    from dlx_deploy.graph.model import load
    from dlx_deploy.graph.quantization.fit import check_names
    from dlx_deploy.graph.quantization.layers import excluded
    from dlx_deploy.graph.quantization.plan import read_plan

    with _exported(smallest_network(setup.config), setup) as path:
        graph = load(path)
        excluded(graph, setup.params.exclude)
        if "plan" in setup.inputs:
            check_names(graph, read_plan(setup.inputs["plan"]))


def rehearse_learning(setup: Setup[Qat]) -> None:
    """Each operator of the exported graph has a counterpart in torch.

    Raises:
        StageFailed: one has not. Else as for the network that is quantized.
    """
    from dlx_deploy.graph.model import load
    from dlx_deploy.nn.qat.graph_network import GraphNetwork

    if is_unknown(setup.config):
        return
    with _exported(smallest_network(setup.config), setup) as path:
        GraphNetwork(load(path))


@contextmanager
def untrained(setup: Setup[P]) -> Iterator[Path]:
    """The file of the network that would be quantized, pruned where it is and not trained, as long as it is looked at.

    Raises:
        StageFailed: so much cannot be removed, or as ``export_onnx``. Else as ``built_network``.
    """
    config = setup.config
    model, spec = smallest_network(config)
    prune = config.prune
    if prune.enabled and (prune.reduces or prune.sparsity == "none"):
        from dlx_deploy.nn.pruning.order import order_of
        from dlx_deploy.stages.support.pruning import rehearsed

        if (known := rehearsed(setup, config)) is not None:
            model, _ = task_for(config.data).inputs.pruned(model, spec, order_of(prune, known))
    with _exported((model, spec), setup) as path:
        yield path


@contextmanager
def _exported(network: tuple[nn.Module, InputSpec], setup: Setup[P]) -> Iterator[Path]:
    """The file of an untrained network, as long as it is looked at."""
    from dlx_deploy.nn.export.network import export_onnx

    (model, spec), data, asked = network, setup.config.data, setup.config.export
    inputs, outputs = task_for(data).inputs, outputs_for(spec, data)
    opset = asked.opset or setup.target.opset
    with Scratch("dlx-deploy-rehearsal") as folder:
        path = folder / MODEL
        export_onnx(model.eval(), path, inputs.export_spec(spec, asked, opset, None, outputs))
        yield path


def rehearse_training(section: Training) -> None:
    """The network can be trained as ``section`` says.

    Raises:
        ConfigError: it cannot. EnvironmentMissing: a GPU is not here.
    """
    from dlx_deploy.nn.training.compute import check_precision
    from dlx_deploy.nn.training.schedules import check_schedule

    if section.epochs:
        check_precision(section)
        check_schedule(section)


def rehearse_network(section: Teacher | Distill, setup: Setup[P]) -> None:
    """The network that ``section`` names can be built, answers what the data ask for and, a user's own, is exported.

    Raises:
        ConfigError: unknown network or arguments, or other answers. EnvironmentMissing: an extra is not here.
        StageFailed: as ``export_onnx``.
    """
    import torch

    data = setup.config.data
    if is_user(section.model):
        # A user's code may do anything, so it is not asked to do it on a device that it does not know, or for a number
        # of classes that may not be that of the data.
        if task_for(data).classes(data) is not None:
            _rehearse_user(built_network(section, data), setup)
        return
    try:
        with torch.device("meta"):
            built_network(section, data)
    except (ConfigError, StageFailed, RuntimeError, NotImplementedError, TypeError, ValueError):
        built_network(section, data)


def _rehearse_user(network: tuple[nn.Module, InputSpec], setup: Setup[P]) -> None:
    import torch

    from dlx_deploy.nn.export.rows import refuse_dependence

    (model, spec), batch = network, setup.config.export.batch
    with torch.random.fork_rng(devices=[]):
        outputs = outputs_for(spec, setup.config.data)
        refuse_dependence(model, (spec.drawn(_ROWS),), outputs, None if batch == "dynamic" else batch)
    with _exported(network, setup):
        pass  # what cannot be exported says so


def smallest_network(config: Config) -> tuple[nn.Module, InputSpec]:
    """The network that is pruned and quantized, for real, as its section describes it."""
    return built_network(config.distill if config.distill.enabled else config.teacher, config.data)


def is_unknown(config: Config) -> bool:
    """Whether that network cannot be made yet: a user's function is asked for the data's number of classes alone.

    One that is a finished graph is never made.
    """
    section = config.distill if config.distill.enabled else config.teacher
    if isinstance(section, Teacher) and section.is_graph:
        return True
    return is_user(section.model) and task_for(config.data).classes(config.data) is None


def built_network(section: Teacher | Distill, data: Data) -> tuple[nn.Module, InputSpec]:
    """The section's network, once it has answered, and what it reads; torch's generator is left as it was."""
    import torch

    from dlx_deploy.nn.models.registry import build_model, check_output, expected_of

    arguments, spec = expected_of(section.model, section.arguments, task_for(data).inputs.expected(data))
    with torch.random.fork_rng(devices=[]):
        model = build_model(section.model, arguments, _classes(data), spec)
        check_output(model, outputs_for(spec, data), spec)
    return model, spec


def outputs_for(spec: InputSpec, data: Data) -> Outputs:
    """What a network that reads ``spec`` answers for such data, as far as the configuration says."""
    return task_for(data).answers.outputs(spec, _classes(data))


def _classes(data: Data) -> int:
    return task_for(data).classes(data) or _SOME_CLASSES
