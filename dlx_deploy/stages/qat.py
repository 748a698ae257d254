"""qat: the exported network trained with its rounding to integers, scales included, under the teacher (LSQ).

With ``qat.enabled = "auto"`` that is only where INT8 misses its budget on the validation split; else the network and
the plan are passed on as they came.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Config, Qat
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.quantization.trials import read_trials
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Stage, Step
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.runtime.words import line
from dlx_deploy.stages.quantize import PTQ_LAYERS, PTQ_PLAN, PTQ_TRIALS, QAT_MODEL, QAT_PLAN, QAT_RECORD
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.layer_precisions import read_precisions
from dlx_deploy.stages.support.missed import TRAINED, Trained, read_trained, trained_bytes, trains_int8
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.rehearsal import rehearse_learning, rehearse_training
from dlx_deploy.stages.support.training import TORCH_TOOLS, Taught, distilling, run_of, taught_by, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.targets.kernels import integer_kernels
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.qat.learned import Learning
    from dlx_deploy.nn.training.losses import LossFn

__all__ = ["STAGE"]

COMPARED = 256
"""Validation samples on which the written graph must answer as the network that was trained."""

_log = logging.getLogger(__name__)


def run(job: Job[Qat]) -> Metrics:
    """Write ``model.onnx``, float32 with what was learned, ``plan.json``, with the scales that were, and
    ``trained.json``.

    Where the validation score fell, the first two are as they were before training; so they are where nothing is
    trained, as INT8 keeps to its budget, or cannot be, and nobody said that it must.

    Raises:
        ConfigError: the plan or the target has nothing on INT8.
        StageFailed: a node has no counterpart in torch, training diverged, or what is written answers otherwise.
    """
    if "trials" not in job.inputs:
        return _trained(job)
    reason = _why_not(job)
    if reason:
        return _untrained(job, reason)
    try:
        return _trained(job)
    except (ConfigError, StageFailed) as e:  # what was made without training is there, and ships
        _log.warning("%s", e)
        return _untrained(job, str(e))


def _why_not(job: Job[Qat]) -> str:
    """Why there is nothing to train for; empty where there is."""
    trials = read_trials(job.inputs["trials"])
    if trials.met:
        return trials.note or "INT8 keeps to its budget on the validation split without training"
    from dlx_deploy.graph.quantization.plan import read_plan
    from dlx_deploy.graph.quantization.scheme import CPU_DYNAMIC

    if read_plan(job.inputs["ptq"]).scheme == CPU_DYNAMIC.name:
        return (
            "activations have no scales that could learn, as quantize.activations 'auto' is dynamic here; 'static' has"
        )
    return ""


def _untrained(job: Job[Qat], reason: str) -> Metrics:
    """All as it came, and why."""
    shutil.copyfile(job.inputs["onnx"], job.out / MODEL)
    shutil.copyfile(job.inputs["ptq"], job.out / "plan.json")
    (job.out / TRAINED).write_bytes(trained_bytes(Trained(trained=False, kept=False, reason=reason)))
    return {"trained": 0.0, "kept": 0.0}


def _trained(job: Job[Qat]) -> Metrics:
    from dlx_deploy.graph.model import to_bytes
    from dlx_deploy.graph.quantization.plan import plan_bytes
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.qat.checks import check_border, check_float, check_written
    from dlx_deploy.nn.qat.learned import learned_model, learned_plan, undivided
    from dlx_deploy.nn.training.batches import TrainData
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.training.inference import evaluate
    from dlx_deploy.nn.training.loop import train

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    task, samples = task_of(data), data.samples("validation")[:COMPARED]
    learning, padding = _learning(job, data), next(iter(samples.padding.values()), 0)
    exact = job.target.quantization.style == "tensorrt"
    learned, metric = TrainData.of(data, task.inputs.feed(data)), task.answers.metric
    check_border(learning, samples, learned.feed)
    check_float(learning, samples, padding)
    network = learning.network(padding)
    before = evaluate(network.eval(), learned.validation_inputs, learned.validation_targets, learned.feed, metric)
    hooks = Hooks(metric=metric, after_update=learning.projected(network))
    report = train(network, learned, job.params, _loss(job, data, learning, padding), run_of(job), hooks)
    kept = report.last_score >= before
    if kept:
        model, plan = learned_model(learning.model, network), learned_plan(learning, network)
    else:
        network, model, plan = learning.network(padding), learning.model, undivided(learning.plan)
    (job.out / MODEL).write_bytes(to_bytes(model))
    (job.out / "plan.json").write_bytes(plan_bytes(plan))
    reason = "" if kept else "the validation score is lower after training"
    (job.out / TRAINED).write_bytes(trained_bytes(Trained(trained=True, kept=kept, reason=reason)))
    job.progress(0, 0, "the written graph against the trained network")
    agreement, sqnr_db = check_written(learning.written(model, plan), network, samples, exact)
    metrics = {
        f"validation_{metric.name}_ptq": before,
        f"validation_{metric.name}": report.last_score,
        "trained": 1.0,
        "kept": float(kept),
        "epochs": float(report.epochs),
        "written_sqnr_db": sqnr_db,
        "written_agreement": agreement,
    }
    if report.epochs:
        job.keep_curves({"loss": report.losses, f"validation_{metric.name}": report.scores})
        metrics |= {"loss": report.losses[-1], "samples_per_s": report.samples_per_s, "data_share": report.data_share}
    return metrics


def _loss(job: Job[Qat], data: Dataset, learning: Learning, padding: int) -> LossFn:
    """Under the teacher; where that came as a graph, it is the very graph that learns, as it is in floating point."""
    if {"teacher", "logits"} & job.inputs.keys():
        return distilling(job, data)
    from dlx_deploy.nn.qat.graph_network import GraphNetwork
    from dlx_deploy.nn.training.losses import distilled

    return distilled(GraphNetwork(learning.model, padding=padding), task_of(data).answers.blend(job.params, data))


def _learning(job: Job[Qat], data: Dataset) -> Learning:
    """Where the plan of the quantized network puts integers, and with which scales they begin."""
    from dlx_deploy.graph.model import load
    from dlx_deploy.graph.quantization.integers import as_divided, setting_for
    from dlx_deploy.graph.quantization.plan import read_plan
    from dlx_deploy.graph.quantization.quantize import QuantizationRequest
    from dlx_deploy.graph.quantization.ranges import Ranges
    from dlx_deploy.nn.qat.learned import Learning

    layers, plan = read_precisions(job.inputs["layers"]), read_plan(job.inputs["ptq"])
    if layers.precision != "int8":
        raise ConfigError(
            f"qat.enabled is true, and quantize wrote {layers.precision} with no layer on int8; rule: there is "
            "something to learn; set qat.enabled = false"
        )
    model, style = load(job.inputs["onnx"]), job.target.quantization
    request = QuantizationRequest(
        style=style.style,
        half=layers.strongly_typed and layers.elsewhere == "fp16",
        reduce_range=style.reduce_range,
        given=plan,
        kernels=integer_kernels(style.kernels),
    )
    setting = setting_for(model, data.samples("calibration"), request)
    model = as_divided(model, plan)
    return Learning(model, setting, setting.planned(model, Ranges(), request.method))


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where INT8 is trained, or may be: the last candidate as it was quantized without training."""
    when = trains_int8(config, profile)
    if when == "never":
        return []
    *_, source = upstream.candidates.values()
    taught = Taught({}, ()) if config.teacher.is_graph else taught_by(config.qat, config, upstream)
    ptq = {"ptq": upstream.output(PTQ_PLAN), "layers": upstream.output(PTQ_LAYERS)}
    if when == "missed":
        ptq["trials"] = upstream.output(PTQ_TRIALS)
    inputs = {"data": upstream.output("data"), "onnx": source, **ptq, **taught.inputs}
    stage = rebuilding(STAGE, taught.networks)
    step = Step("qat", stage, config.qat, inputs, config.seed, notes=partial(notes, config))
    files = {QAT_MODEL: MODEL, QAT_PLAN: "plan.json", QAT_RECORD: TRAINED}
    return [Bound(step, Offers(outputs={offer: Output("qat", file) for offer, file in files.items()}))]


def notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """That nothing was trained, and why; or that nothing is kept of the training, where its score is lower."""
    if not metrics["trained"]:
        return [f"nothing was trained: {line(read_trained(outputs[TRAINED]).reason)}"]
    metric = task_for(config.data).answers.metric
    before, after = metrics[f"validation_{metric.name}_ptq"], metrics[f"validation_{metric.name}"]
    if metrics["kept"]:
        return []
    return [
        f"qat: validation {metric.title} is {after:.4f} after training and was {before:.4f} before, so the network "
        "stays as it was quantized without training; lower qat.learning_rate, train longer, or set qat.enabled = false"
    ]


def check(setup: Setup[Qat]) -> None:
    """The ``[qat]`` table, and what of the others does not go with it."""
    config = setup.config
    try:
        check_training("qat", setup.params, config.data)
    except ConfigError as e:
        if setup.params.enabled != "auto":
            raise
        raise ConfigError(f"{e}; or set qat.enabled = false, which quantize.effort 'best' has as 'auto'") from e
    if config.quantize.activations == "dynamic":
        raise ConfigError(
            "quantize.activations is 'dynamic' and qat.enabled is true; rule: scales that learn are static; set one of "
            "the two to 'static' or false"
        )
    if config.quantize.precision not in ("auto", "int8") or "int8" not in setup.target.precisions:
        raise ConfigError(
            f"qat.enabled is true, quantize.precision {config.quantize.precision!r}, and {setup.target.name} runs "
            f"{', '.join(setup.target.precisions)}; rule: qat trains for int8; set qat.enabled = false"
        )


def rehearse(setup: Setup[Qat]) -> None:
    """The network can be trained as its section says, and each of its operators has a counterpart in torch.

    Raises:
        StageFailed: an operator has not. Else as for the network that is quantized.
    """
    rehearse_training(setup.params)
    if setup.params.enabled is True:  # else what cannot learn stays as it is
        rehearse_learning(setup)


STAGE = Stage(
    name="qat",
    version=2,
    params=Qat,
    inputs=("onnx", "data", "ptq", "layers", "trials", "teacher", "logits"),
    outputs=(MODEL, "plan.json", TRAINED),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    uses=("kind", "quantization"),
    distributed=True,
    tools=(*TORCH_TOOLS, "onnx", "onnxruntime"),
)
