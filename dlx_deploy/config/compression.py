"""The tables of what is done to a trained network: pruned, exported, quantized, compiled."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from dlx_deploy.config.training import Taught
from dlx_deploy.config.values import AtLeastOne, Count, Fraction, Positive, Section

__all__ = [
    "Compile",
    "Export",
    "Prune",
    "Qat",
    "Quantize",
]


class Prune(Taught, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Structured pruning: whole channels are removed, least important first, then a short distilled fine-tune.

    One goal: a share of the multiply-accumulates, the parameters or the latency, or a latency. ``importance``: the L2
    norm of the weights, or what the loss changes without them (Taylor). ``grouping``: what is ranked together.
    ``rounds``: so often some go and the rest learns. ``sparsity``: weights set to zero where they stand, after that,
    and kept so in the fine-tune. ``reconstruct``: what reads removed channels or weights is fitted anew.
    """

    _GOALS: ClassVar[tuple[str, ...]] = ("reduce_macs", "reduce_parameters", "reduce_latency", "max_latency_ms")

    enabled: bool = True
    reduce_macs: Fraction = 0.2
    reduce_parameters: Fraction = 0.0
    reduce_latency: Fraction = 0.0
    max_latency_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    importance: Literal["l2", "taylor"] = "l2"
    grouping: Literal["layer", "isomorphic"] = "layer"
    reconstruct: bool = False
    rounds: AtLeastOne = 1
    round_to: AtLeastOne = 8
    keep_trunk: bool = True
    trace_seconds: Positive = 300.0
    sparsity: Literal["none", "2:4", "unstructured"] = "none"
    sparsity_ratio: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.5
    sparsity_scope: Literal["global", "layer"] = "global"
    epochs: Count = 25
    learning_rate: Positive = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        goals = [f"{key} is {value:g}" for key in self._GOALS if (value := getattr(self, key))]
        if len(goals) > 1:
            raise ValueError(f"{' and '.join(goals)}; rule: one goal; set {goals[0].partition(' ')[0]} = 0")
        if self.rounds > 1 and not (self.reduces and self.epochs >= self.rounds):
            seen = f"epochs is {self.epochs}" if self.reduces else "no channels go (reduce_macs is 0)"
            raise ValueError(f"rounds is {self.rounds} and {seen}; rule: a goal, and an epoch for each round")
        if self.rounds > 1 and self.max_latency_ms:
            seen = f"max_latency_ms is {self.max_latency_ms:g}"
            raise ValueError(f"rounds is {self.rounds} and {seen}; rule: a goal that is a share: reduce_latency")
        given = {"sparsity_ratio": self.sparsity_ratio != 0.5, "sparsity_scope": self.sparsity_scope != "global"}
        if self.sparsity != "unstructured" and (wrong := [name for name, is_set in given.items() if is_set]):
            raise ValueError(
                f"{wrong[0]} is {getattr(self, wrong[0])!r} and sparsity {self.sparsity!r}; rule: with 'unstructured'"
            )

    @property
    def reduces(self) -> bool:
        """Whether there is a goal, so that channels go."""
        return any(getattr(self, key) for key in self._GOALS)

    @property
    def is_latency(self) -> bool:
        """Whether the goal is told in time."""
        return bool(self.reduce_latency or self.max_latency_ms)


class Qat(Taught, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantization-aware training of what is exported: weights and scales learn under the rounding (LSQ).

    ``enabled``: ``auto`` is with ``quantize.effort = "best"``, where INT8 misses its budget on the validation split.
    """

    enabled: bool | Literal["auto"] = "auto"
    epochs: Count = 5
    learning_rate: Positive = 0.001


class Export(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ONNX: uint8 NHWC images or int32 tokens in, the task's outputs out, normalisation and layout inside the graph."""

    opset: Count = 0
    batch: Literal["dynamic"] | AtLeastOne = "dynamic"
    length: Literal["auto", "dynamic", "fixed"] = "auto"
    parity_images: AtLeastOne = 64
    parity_tolerance: Positive = 1e-3


class Quantize(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The precision of every layer: INT8 with explicit Q/DQ in the style that the target's profile asks for, or FP16.

    ``plan``: a ``plan.json`` of an earlier build, edited or not, or a part of one (docs/quantization.md). ``effort``:
    how much is tried to make INT8 more accurate, each attempt kept where held-out calibration inputs show it.
    ``max_drop``: by how much the validation score may fall against the teacher before layers are restored to floating
    point (``precision = "auto"``); ``gate``: ``gate.max_drop``; ``off``: nobody looks. ``weight_bits``: of the weights
    of INT8 layers of which ``plan`` says nothing else. ``precision = "int4"``: weights alone, of MatMul and Gemm, with
    a scale for each ``block_size`` inputs of an output channel.
    """

    precision: Literal["auto", "int8", "int4", "fp8", "fp16", "bf16", "fp32"] = "auto"
    elsewhere: Literal["auto", "fp16", "fp32"] = "auto"
    calibration: Literal["minmax", "percentile", "entropy", "mse"] = "minmax"
    effort: Literal["fast", "balanced", "best"] = "fast"
    activations: Literal["auto", "static", "dynamic"] = "auto"
    max_drop: Literal["gate", "off"] | Fraction = "gate"
    weight_bits: Literal[4, 8] = 8
    activation_bits: Literal[4, 8] = 8
    block_size: Literal[32, 64, 128] = 32
    exclude: tuple[str, ...] = ()
    plan: str = ""

    def __post_init__(self) -> None:
        if self.block_size != 32 and self.precision != "int4":
            raise ValueError(f"block_size is {self.block_size} and precision {self.precision!r}; rule: with 'int4'")


class Compile(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the target loads: INT8 or FP32 by measurement where this CPU is the target, else a TensorRT engine.

    On this CPU INT8 is shipped where paired timings show ``min_speedup``; undecided is FP32. ``dla_core`` and
    ``optimization_level``: -1 leaves them alone.
    """

    min_speedup: Positive = 1.05
    rounds: AtLeastOne = 300
    engine: Literal["auto", "required", "off"] = "auto"
    opt_batch: AtLeastOne = 1
    max_batch: AtLeastOne = 16
    dla_core: Annotated[int, Meta(ge=-1)] = -1
    optimization_level: Annotated[int, Meta(ge=-1, le=5)] = -1
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if self.opt_batch > self.max_batch:
            raise ValueError(f"opt_batch is {self.opt_batch}; rule: at most max_batch, {self.max_batch}")
