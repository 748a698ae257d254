"""What ``[quantize]`` and the target ask of ``graph.quantization``: precisions, how ranges are found, the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dlx_deploy.config import Gate, Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.support.precisions import refuse
from dlx_deploy.targets.kernels import integer_kernels

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.plan import QuantizationPlan
    from dlx_deploy.graph.quantization.quantize import QuantizationRequest
    from dlx_deploy.graph.samples import Samples
    from dlx_deploy.targets import Profile

__all__ = [
    "QUANTIZED_TO",
    "Half",
    "Precision",
    "QuantizeParams",
    "asks_for_int8",
    "calibration_samples",
    "dynamic_or_static",
    "fewer_bits",
    "given_plan",
    "half_in_graph",
    "precisions_of",
    "refuse_dynamic",
    "request_of",
]

Precision = Literal["int8", "int4", "fp8", "fp16", "bf16", "fp32"]
Half = Literal["fp16", "fp32"]
QUANTIZED_TO: tuple[Precision, ...] = ("int8", "int4", "fp8")


class QuantizeParams(Quantize, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, ``max_drop`` as a number or ``off``, and the confidence that its bound is asked for at.

    ``metric``: that of the gate; "": the task's own. ``missed``: what follows where the budget is: layers are restored,
    or nothing yet, as ``qat`` trains all of them.
    """

    confidence: float = Gate().confidence
    metric: str = ""
    missed: Literal["restore", "train"] = "restore"


def calibration_samples(job: Job[Quantize]) -> Samples:
    """What activations are looked at on."""
    from dlx_deploy.nn.data.dataset import open_data

    return open_data(job.inputs["data"]).samples("calibration")


def request_of(job: Job[Quantize], precision: Precision, elsewhere: Half, dynamic: bool) -> QuantizationRequest:
    """One graph's order: ``precision`` where it can be, ``elsewhere`` the rest."""
    from dlx_deploy.graph.quantization.quantize import QuantizationRequest

    return QuantizationRequest(
        style=job.target.quantization.style,
        int8=precision == "int8",
        block_size=job.params.block_size if precision == "int4" else 0,
        fp8=precision == "fp8",
        bf16=precision == "bf16",
        half=half_in_graph(job, precision, elsewhere),
        reduce_range=job.target.quantization.reduce_range,
        method=job.params.calibration,
        dynamic=dynamic,
        exclude=job.params.exclude,
        given=given_plan(job),
        effort=job.params.effort,
        weight_bits=job.params.weight_bits,
        activation_bits=job.params.activation_bits,
        kernels=integer_kernels(job.target.quantization.kernels),
    )


def asks_for_int8(job: Job[Quantize]) -> bool:
    """Whether INT8 was asked for by name, of all layers or in a plan."""
    return job.params.precision != "auto" or bool(given_plan(job).layers_at("int8"))


def given_plan(job: Job[Quantize]) -> QuantizationPlan:
    """The plan that was given; one without a line where none was."""
    from dlx_deploy.graph.quantization.plan import SCHEMA, QuantizationPlan, read_plan

    return read_plan(job.inputs["plan"]) if "plan" in job.inputs else QuantizationPlan(schema=SCHEMA)


def precisions_of(params: Quantize, target: Profile) -> tuple[Precision, Half]:
    """The lowest precision of the plan, and that of the rest."""
    halves = ("fp16", "bf16") if target.builds_engines else ()
    runs = [p for p in (*QUANTIZED_TO, *halves) if p in target.precisions]
    refuse("precision", params.precision, runs)
    refuse("elsewhere", params.elsewhere, runs)
    half: Half = "fp16" if "fp16" in runs and params.elsewhere != "fp32" else "fp32"
    if params.precision == "bf16":
        return "bf16", "fp32"
    if params.precision in ("int4", "fp8"):
        return params.precision, half
    if params.precision == "int8" or (params.precision == "auto" and "int8" in runs):
        return "int8", half
    if params.precision == "fp16" or (params.precision == "auto" and half == "fp16"):
        return "fp16", "fp16"
    return "fp32", "fp32"


def dynamic_or_static(job: Job[Quantize]) -> tuple[bool, ...]:
    """Whether the ranges of activations are found while the network runs: what to try, in this order.

    That suits texts on a CPU, one row at a time (``graph.quantization.dynamic``).
    """
    from dlx_deploy.graph.model import batch_size, load
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.tasks import task_of

    asked, style = job.params.activations, job.target.quantization.style
    refuse_dynamic(job.params, job.target)
    if asked != "auto":
        return (asked == "dynamic",)
    given = given_plan(job)
    if given.scheme or given.tensors:  # what it says of tensors is said of static ranges
        return (given.scheme == "cpu-dynamic",)
    if fewer_bits(job.params):  # ONNX Runtime's quantizer, which dynamic ranges rest on, writes 8
        return (False,)
    one_row = batch_size(load(job.inputs["onnx"])) in (None, 1)
    inputs = task_of(open_data(job.inputs["data"])).inputs
    return (True, False) if style == "cpu" and one_row and not inputs.seen_in_calibration else (False,)


def refuse_dynamic(params: Quantize, target: Profile) -> None:
    """Say where dynamic activations cannot be.

    Raises:
        ConfigError: the target's style, or the number of bits, needs static ranges.
    """
    style = target.quantization.style
    if params.activations == "dynamic" and style != "cpu":
        raise ConfigError(
            f"quantize.activations is 'dynamic', and this target's {style} style needs static ranges; use 'auto'"
        )
    if params.activations == "dynamic" and (fewer := fewer_bits(params)):
        raise ConfigError(
            f"quantize.{fewer} is {getattr(params, fewer)} and quantize.activations 'dynamic', which goes with 8; set "
            f"quantize.activations to 'static', or quantize.{fewer} to 8"
        )


def fewer_bits(params: Quantize) -> str:
    """The key that asks for fewer bits than 8, if one does."""
    return next((key for key in ("weight_bits", "activation_bits") if getattr(params, key) < 8), "")


def half_in_graph(job: Job[Quantize], precision: Precision, elsewhere: Half) -> bool:
    """Whether FP16 can be written into the graph: Q/DQ know it from opset 19 on, everything else always."""
    from dlx_deploy.graph.model import load, opset
    from dlx_deploy.graph.passes.half import QDQ_IN_HALF

    return elsewhere == "fp16" and (precision == "fp16" or opset(load(job.inputs["onnx"])) >= QDQ_IN_HALF)
