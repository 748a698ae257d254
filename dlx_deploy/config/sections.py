"""The tables of ``deploy.toml`` as frozen structs: every key, its type, its range and its default.

What each key means stands in ``deploy.toml`` beside this file.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from dlx_deploy.config.strict import Table, decode

__all__ = [
    "ATTENTION",
    "DIST",
    "DKD",
    "HINTON",
    "LAYOUTS",
    "METHODS",
    "PROJECTOR",
    "RELATION",
    "Compile",
    "Config",
    "Data",
    "Distill",
    "Export",
    "Gate",
    "Package",
    "Prune",
    "Qat",
    "Quantize",
    "Search",
    "Section",
    "Taught",
    "Teacher",
    "Training",
    "TrainingDefaults",
    "Verify",
]

LAYOUTS = ("imagefolder", "imagelist", "webdataset", "huggingface")
"""The values of ``data.kind`` for labelled images of the user's own, which may be for evaluation alone."""
HINTON: Final = "hinton"
DKD: Final = "dkd"
DIST: Final = "dist"
METHODS = (HINTON, DKD, DIST)
"""The values of ``method``: what of a teacher's answers a student is held to."""
PROJECTOR: Final = "projector"
ATTENTION: Final = "attention"
RELATION: Final = "relation"
"""The values of ``hint_method``: how layers are compared."""
P = TypeVar("P", bound=msgspec.Struct)
GRAPHS = (".onnx", ".pt2")
"""What names of files end with that hold a finished network: ONNX, and torch.export programs."""
Fraction = Annotated[float, Meta(ge=0.0, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Level = Annotated[int, Meta(ge=0, le=255)]
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of ``deploy.toml``."""


class Data(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the images or texts come from and how they are split.

    ``kind = "digits"``: scikit-learn's 1,797 scanned digits, 8 x 8, one channel.
    ``kind = "imagefolder"``: ``path/train/CLASS/**/*.jpg`` (or another format of ``runtime.tasks.folders.SUFFIXES``,
    any size) with optional ``path/test`` and ``path/validation``; a split that has no folder is drawn from ``train``,
    stratified by class.
    ``kind = "imagelist"``: ``path`` is a CSV or JSONL file with columns path and label, maybe split and group.
    ``kind = "webdataset"``: ``path`` is a folder of tar files, ``train-00000.tar``, …. ``kind = "huggingface"``:
    a folder of Parquet files, or of Arrow files as ``save_to_disk`` writes them.
    ``kind = "docstrings"``: first paragraphs of docstrings of numpy, scikit-learn and torch; which package is it?
    ``kind = "text"``: ``path/train.csv`` (columns text and label) or ``train.jsonl``, and likewise ``validation`` and
    ``test``; or one such file.
    ``kind = "scenes"``: the digits on textured ground, with masks. ``kind = "maskfolder"``: ``path/train/images`` and
    ``path/train/masks`` (index PNGs), and likewise ``validation`` and ``test``.
    """

    kind: str = "digits"
    path: str = ""
    height: Count = 0
    width: Count = 0
    channels: Literal[0, 1, 3] = 0
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 1 / 3
    calibration_images: AtLeastOne = 256
    limit_train: Count = 0
    limit_test: Count = 0
    allow_missing_classes: bool = False
    allow_leakage: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[Positive, ...] = ()
    scale: Annotated[float, Meta(ge=0.0)] = 0.0
    resize: Literal["", "squash", "crop", "letterbox"] = ""
    crop_fraction: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    resize_size: Annotated[tuple[AtLeastOne, ...], Meta(max_length=2)] = ()
    crop_offset: Literal["", "round", "floor"] = ""
    interpolation: Literal["", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = ""
    fill: Annotated[tuple[Level, ...], Meta(max_length=3)] = ()
    color_order: Literal["", "rgb", "bgr"] = ""
    originals: Count = 0
    tokenizer: str = "bytes"
    vocabulary: Annotated[int, Meta(ge=300)] = 4096
    max_length: AtLeastOne = 128
    truncate: bool = False
    ignore_index: Annotated[int, Meta(ge=0, le=255)] = 255
    # Where samples come from.
    root: str = ""
    classes: str = ""
    group_by: str = ""
    max_bad_fraction: Fraction = 0.0
    use: Literal["auto", "training", "evaluation"] = "auto"

    def __post_init__(self) -> None:
        if self.group_by:
            try:
                re.compile(self.group_by)
            except re.error as e:
                raise ValueError(
                    f"group_by is {self.group_by!r}, no regular expression ({e}); rule: one that finds the group in an "
                    "image's path, for instance 'patient([0-9]+)'"
                ) from e
        if self.tokenizer not in ("bytes", "words") and not self.tokenizer.endswith(".json"):
            raise ValueError(f"tokenizer is {self.tokenizer!r}; rule: 'bytes', 'words' or the path of a tokenizer.json")


class TrainingDefaults(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How networks are trained: what ``[training]`` says of all of them, unless their own section says otherwise."""

    batch_size: AtLeastOne = 64
    max_tokens: AtLeastOne = 4096
    accumulate: AtLeastOne = 1
    loss: str = ""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    schedule: Literal["cosine", "one-cycle", "cosine-restarts"] = "cosine"
    warmup_fraction: Fraction = 0.25
    restart_epochs: Count = 0
    restart_factor: AtLeastOne = 2
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Meta(ge=0.0)] = 5e-4
    clip_norm: Annotated[float, Meta(ge=0.0)] = 5.0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    ema_decay: Fraction = 0.0
    patience: Count = 0
    weigh_by: Literal["samples", "tokens"] = "samples"
    shift_px: Count = 1
    flip: bool = False
    rand_augment: Count = 0
    mixup: Annotated[float, Meta(ge=0.0)] = 0.0
    cutmix: Annotated[float, Meta(ge=0.0)] = 0.0


class Training(TrainingDefaults, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run."""

    epochs: Count = 10


class Teacher(Training, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network to learn from. With a ``checkpoint`` it is loaded, and trained further only if ``epochs`` > 0.

    A ``model`` that is an ONNX file or a torch.export program is finished: it is used as it is.
    """

    model: str = "resnet20"
    arguments: Table = msgspec.field(default_factory=lambda: {"width": 2.0})
    checkpoint: str = ""
    checkpoint_key: str = ""
    pretrained: str = ""
    classes: tuple[str, ...] = ()
    output: str = ""
    new_head: bool = False
    unfreeze_epochs: tuple[Count, ...] = ()
    frozen_groups: Count = 0
    layer_decay: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    sharding: Literal["replicate", "shard"] = "replicate"
    label_smoothing: Fraction = 0.1
    epochs: Count = 25

    @property
    def is_graph(self) -> bool:
        """Whether ``model`` is a file with a finished network."""
        return self.model.lower().endswith(GRAPHS)

    def __post_init__(self) -> None:
        _refuse_odd_weights(self, self.is_graph)
        if self.output and not self.is_graph:
            raise ValueError(f"output is {self.output!r} and model {self.model!r}; rule: with an .onnx or .pt2 file")


class Taught(Training, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run under a teacher: ``alpha`` of what it answers, the rest of the targets.

    ``alpha * T^2 * soft + (1 - alpha) * CE``, where soft is, by ``method``, Hinton et al. 2015, Zhao et al. 2022 (DKD)
    or Huang et al. 2022 (DIST); ``standardize``: of Z-scores of the logits (Sun et al. 2024). ``soft_warmup``: the
    share of all steps over which the first term rises from 0.
    """

    method: Literal["hinton", "dkd", "dist"] = HINTON
    temperature: Positive = 4.0
    alpha: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.9
    beta: Annotated[float, Meta(ge=0.0)] = 0.0
    standardize: bool = False
    soft_warmup: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.beta and self.method == HINTON:
            raise ValueError(f"beta is {self.beta:g} and method is {HINTON!r}; rule: with {DKD!r} or {DIST!r}")
        if self.standardize and self.method == DIST:
            raise ValueError(
                f"standardize is true and method is {DIST!r}, which looks at correlations; rule: with {HINTON!r} or "
                f"{DKD!r}"
            )
        for key in ("mixup", "cutmix"):
            if self.method == DKD and getattr(self, key):
                raise ValueError(
                    f"{key} is {getattr(self, key):g} and method is {DKD!r}, which asks for the class of a sample, and "
                    f"mixed samples have several; rule: {key} 0, or another method"
                )


class Distill(Taught, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The student, which may begin with weights as ``[teacher]`` does. ``teachers``: others beside the first, each a
    table as that one.

    ``control``: its network is trained without a teacher too, to show what distillation gave.
    """

    enabled: bool = True
    model: str = "resnet8"
    arguments: Table = msgspec.field(default_factory=lambda: {"width": 1.5})
    checkpoint: str = ""
    checkpoint_key: str = ""
    pretrained: str = ""
    classes: tuple[str, ...] = ()
    new_head: bool = False
    teachers: Annotated[tuple[Teacher, ...], Meta(max_length=8)] = ()
    control: bool = False
    hints: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=400)], ...], Meta(max_length=64)] = ()
    hint_method: Literal["projector", "attention", "relation"] = PROJECTOR
    hint_weight: Positive = 1.0
    epochs: Count = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_odd_weights(self)
        for i, one in enumerate(self.teachers):
            if one.is_graph:
                raise ValueError(
                    f"teachers[{i}].model is {one.model!r}, a finished graph; rule: a network, which can be asked as "
                    "the student trains"
                )
        if not self.hints and (self.hint_method != PROJECTOR or self.hint_weight != 1.0):
            seen = f"hint_method is {self.hint_method!r}, hint_weight {self.hint_weight:g}"
            raise ValueError(f"{seen} and hints is []; rule: they say something of hints")


def _refuse_odd_weights(section: Teacher | Distill, holds_weights: bool = False) -> None:
    """Nothing, if the keys of where weights come from fit together. ``holds_weights``: the model is a file with them.

    Raises:
        ValueError: they do not.
    """
    checkpoint, pretrained = section.checkpoint, section.pretrained
    if checkpoint and pretrained:
        raise ValueError(f"checkpoint is {checkpoint!r} and pretrained {pretrained!r}; rule: one of them")
    if section.classes and not (checkpoint or holds_weights):
        raise ValueError(f"classes is {list(section.classes)} and checkpoint is not set; rule: with it")
    if section.checkpoint_key and not checkpoint:
        raise ValueError(f"checkpoint_key is {section.checkpoint_key!r} and checkpoint is not set; rule: with it")


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


class Verify(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Teacher against candidate on the test split, and latency where this machine is the target.

    ``calibration``: how far probabilities of what is shipped are off, and the temperature that brings them nearer.
    """

    rounds: AtLeastOne = 400
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    calibration: bool = False


class Gate(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budgets, by the task's metric. ``max_drop``: it may fall by so much (0.02 is two points), shown at
    ``confidence``.

    ``min_accuracy``: what is shipped must reach so much; 0: no floor, and then the teacher must be clearly better than
    one answer to everything, unless ``allow_chance``.
    """

    max_drop: Fraction = 0.02
    min_accuracy: Fraction = 0.0
    allow_chance: bool = False
    confidence: Annotated[float, Meta(ge=0.5, lt=1.0)] = 0.95
    max_latency_p90_ms: Annotated[float, Meta(ge=0.0)] = 0.0


class Package(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``.dlx`` file."""

    golden_images: AtLeastOne = 8
    parity_samples: Annotated[int, Meta(ge=0, le=10_000)] = 512
    deflate: bool = False


class Search(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``dlx-deploy search`` tries, which nothing else reads.

    ``space``: key of the configuration → a list of choices, two numbers, which are a range, or a table of ``choice`` or
    of ``low``, ``high`` and maybe ``step`` or ``log``. A trial is stopped where a network on its way is worse than the
    budgets by more than ``slack``. ``choose``: of the trials that meet all budgets, the best by that.
    """

    space: Table = {}
    choose: Literal["latency", "accuracy", "size"] = "latency"
    slack: Fraction = 0.05
    max_size_mib: Annotated[float, Meta(ge=0.0)] = 0.0


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of ``deploy.toml``; what ``training`` says has entered the sections that inherit it."""

    name: Identifier = "digits"
    version: Identifier = "0.1.0"
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    targets: Annotated[tuple[str, ...], Meta(min_length=1)] = ("jetson",)
    data: Data = Data()
    training: TrainingDefaults = TrainingDefaults()
    teacher: Teacher = Teacher()
    distill: Distill = Distill()
    prune: Prune = Prune()
    export: Export = Export()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()
    compile: Compile = Compile()
    verify: Verify = Verify()
    gate: Gate = Gate()
    package: Package = Package()
    search: Search = Search()
    stages: dict[str, Table] = {}

    @property
    def trains(self) -> bool:
        """Whether a network learns from the training split, or is pruned by it."""
        return bool(self.teacher.epochs or self.distill.enabled or self.prune.enabled or self.qat.enabled is True)

    def own(self, stage: str, kind: type[P]) -> P:
        """The parameters that ``[stages.NAME]`` gives to a stage of another package.

        Raises:
            ConfigError: they are none of a ``kind``.
        """
        given = {key: value for key, value in self.stages.get(stage, {}).items() if key != "after"}
        return decode(given, kind, f"stages.{stage}")
