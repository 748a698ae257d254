"""What pruning looks at beside the weights, where ``[prune]`` asks for it: samples, the task's loss, a latency."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dlx_deploy.config import HINTON, Config, Data, Export, Prune
from dlx_deploy.devices.choice import device_for
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Job, Setup, Stage
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.targets import Profile
from dlx_deploy.targets.roofline import NOT_MEASURED, SPREAD, estimate
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.devices.device import Device
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.export.spec import Spec
    from dlx_deploy.nn.pruning.order import Grounds, Meter

__all__ = ["check_latency", "grounds", "metered", "rehearsed"]

_ROUNDS = 200
"""Timings of a network, each beside one of the network as it came."""
_BEFORE, _NOW = "before", "now"
_LOOKS_AT = ("kind", "name", "roofline", "power_mode", "precisions", "opset", "backends")


@dataclasses.dataclass
class _First:
    """The network that others are timed beside, as ONNX, and its median."""

    model: bytes = b""
    ms: float = 0.0


def metered(stage: Stage[Any], params: Prune) -> Stage[Any]:
    """``stage``; where the goal is a latency it looks at the target, and may time networks there."""
    if not params.is_latency:
        return stage
    tools = (*stage.tools, "onnx", "onnxruntime", "onnxscript")
    return dataclasses.replace(stage, uses=_LOOKS_AT, tools=tools, measures_host=True, times_host=True)


def check_latency(params: Prune, profile: Profile) -> None:
    """A latency that some network could have.

    Raises:
        ConfigError: it is below the roofline; says which is not.
    """
    least = profile.roofline.launch_us / 1e3 * (1 - SPREAD)
    if 0 < params.max_latency_ms < least:
        raise ConfigError(
            f"prune.max_latency_ms is {params.max_latency_ms:g}, and on {profile.name} a single layer takes "
            f"{least:.3g} ms or more to start; rule: a latency above the roofline; the nearest that a network could "
            f"have is {least:.3g}"
        )


def grounds(job: Job[Prune], data: Dataset) -> Grounds:
    """For the network that ``job`` prunes: what its importance and its goal ask for, and who watches."""
    from dlx_deploy.nn.pruning.batches import SomeOf
    from dlx_deploy.nn.pruning.order import Grounds
    from dlx_deploy.nn.training.batches import TrainData
    from dlx_deploy.nn.training.losses import undistilled

    params, task = job.params, task_of(data)
    meter = None
    if params.is_latency:
        inputs, reads = task.inputs, task.inputs.spec(data)
        asked, outputs = inputs.exported(Export(), job.target), task.answers.outputs(reads, len(data.classes))
        spec = inputs.export_spec(reads, asked, job.target.opset, data, outputs)
        # Several processes must prune alike, and no two of them time alike.
        timed = job.device if job.target.kind == "cpu" and job.processes == 1 else None
        meter = _timing(job, timed, spec, data) if timed else _estimating(job.target, spec)
    if params.importance == "l2" and not params.reconstruct:
        return Grounds(meter=meter, progress=job.progress)
    batches = SomeOf(TrainData.of(data, task.inputs.feed(data)), job.seed)
    alone = task.answers.blend(replace(params, method=HINTON, alpha=0.0), data)  # the targets' loss
    return Grounds(batches, undistilled(alone), meter, job.progress)


def rehearsed(setup: Setup[Any], config: Config) -> Grounds | None:
    """What is known before there are data; ``None``: a latency that will be timed, which nobody can tell yet."""
    from dlx_deploy.nn.pruning.order import Grounds

    params, profile, data = config.prune, setup.target, config.data
    if not params.is_latency:
        return Grounds()
    if profile.kind == "cpu" and device_for(profile) is not None:
        return None
    return Grounds(meter=_estimating(profile, _unseen_spec(data, profile)))


def _unseen_spec(data: Data, profile: Profile) -> Spec:
    from dlx_deploy.stages.support.rehearsal import outputs_for

    inputs = task_for(data).inputs
    reads = inputs.expected(data)
    return inputs.export_spec(reads, inputs.exported(Export(), profile), profile.opset, None, outputs_for(reads, data))


def _estimating(profile: Profile, spec: Spec) -> Meter:
    """By the roofline."""
    from dlx_deploy.graph.analysis.cost import layer_costs
    from dlx_deploy.nn.export.network import export_onnx
    from dlx_deploy.nn.pruning.order import Meter

    def ms(model: nn.Module) -> float:
        with Scratch("dlx-deploy-prune") as folder:
            export_onnx(model, folder / MODEL, spec)
            return estimate(layer_costs(folder / MODEL), profile).latency_ms

    return Meter(ms, f"float32, {NOT_MEASURED}")


def _timing(job: Job[Prune], device: Device, spec: Spec, data: Dataset) -> Meter:
    """By the device: each network in turn with the first one, whose median counts as what it was at first."""
    from dlx_deploy.nn.export.network import export_onnx
    from dlx_deploy.nn.pruning.order import Meter
    from dlx_deploy.runtime.timing.sampling import BUILD_PACE, Sampling

    sample, first = data.samples("validation")[:1], _First()

    def ms(model: nn.Module) -> float:
        with Scratch("dlx-deploy-prune") as folder:
            paths = {name: folder / f"{name}.onnx" for name in (_BEFORE, _NOW)}
            export_onnx(model, paths[_NOW], spec)
            first.model = first.model or paths[_NOW].read_bytes()
            paths[_BEFORE].write_bytes(first.model)
            seen = device.latencies(paths, sample, Sampling(_ROUNDS, pace=BUILD_PACE), 1, job.progress).latencies
        first.ms = first.ms or seen[_BEFORE].p50_ms
        return first.ms * seen[_NOW].p50_ms / seen[_BEFORE].p50_ms

    return Meter(ms, f"float32, one thread, measured on {device.name}")
