"""The tables of what trains: what is said for all of it, the teacher, the student."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dlx_deploy.config.strict import Table
from dlx_deploy.config.values import AtLeastOne, Count, Fraction, Positive, Section

__all__ = [
    "ATTENTION",
    "DIST",
    "DKD",
    "GRAPHS",
    "HINTON",
    "METHODS",
    "PROJECTOR",
    "RELATION",
    "Distill",
    "Taught",
    "Teacher",
    "Training",
    "TrainingDefaults",
]

HINTON: Final = "hinton"
DKD: Final = "dkd"
DIST: Final = "dist"
METHODS = (HINTON, DKD, DIST)
"""The values of ``method``: what of a teacher's answers a student is held to."""
PROJECTOR: Final = "projector"
ATTENTION: Final = "attention"
RELATION: Final = "relation"
"""The values of ``hint_method``: how layers are compared."""
GRAPHS = (".onnx", ".pt2")
"""What names of files end with that hold a finished network: ONNX, and torch.export programs."""


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
