"""The networks that have a name: a table of families, without torch, for checks that must take milliseconds."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "FAMILIES",
    "HF",
    "TIMM",
    "USER",
    "Family",
    "Reads",
    "examples",
    "family_of",
    "is_user",
    "loaded",
    "model_names",
    "torchvision_names",
    "unlisted",
]

Reads = Literal["images", "texts"]
"""What a network reads."""
TIMM, HF, USER = "timm:", "hf:", ".py:"
"""What names of networks from these collections begin with, and what is in that of a user's own function."""
# Between this decorator and the function come others, of several lines each.
_REGISTERED = re.compile(r"^@register_model\((?:name=)?(?:\"(\w+)\")?\)\n(?:[@ )].*\n)*def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Family:
    """Networks that are built alike; a name belongs to one family.

    ``gives``: what they answer, as a task's ``Answers.gives`` asks for it. ``builder``: ``module:function`` of a
    function of a name, arguments, the number of classes and the ``InputSpec``, which gives the untrained network, with
    initial weights from torch's global generator. ``names``: those that it has, or what lists them; an empty list
    cannot be read here before its library is imported. ``prefix``: what names of a whole collection begin with, which
    the builder gets without it. ``weights``: ``module:function`` of a function of a name, the name of its weights and a
    folder (or ``None``), which gives where trained weights come from and the state dict. ``recipe``: that of a function
    of a ``Trained``, which gives the preprocessing that its metadata say; ``reference``: of one that gives its
    library's own function for it. ``example``: for messages. ``library``: the distribution, other than torch and
    torchvision, that makes the network.
    """

    reads: Reads
    gives: str
    builder: str
    names: tuple[str, ...] | Callable[[], tuple[str, ...]] = ()
    prefix: str = ""
    weights: str = ""
    recipe: str = ""
    reference: str = ""
    example: str = ""
    library: str = ""

    def listed(self) -> tuple[str, ...]:
        """The names, sorted; empty for a collection, and where they cannot be listed."""
        return tuple(sorted(self.names() if callable(self.names) else self.names))


def torchvision_names(room: str = "") -> tuple[str, ...]:
    """The networks of ``torchvision.models``, or of a ``room`` of it; empty where they cannot be listed.

    They are read off its source, as importing it would import torch. Where the source is not there to read, it is asked
    itself, once something else has imported it.
    """
    package = importlib.util.find_spec("torchvision")
    if package is not None and package.origin:
        folder = Path(package.origin).parent / "models" / room
        names = tuple(
            given or function
            for path in folder.glob("*.py")
            for given, function in _REGISTERED.findall(path.read_text(encoding="utf-8", errors="replace"))
        )
        if names:
            return names
    models = sys.modules.get("torchvision.models")
    return tuple(models.list_models(module=getattr(models, room) if room else models)) if models is not None else ()


_HERE = "dlx_deploy.nn.models"
_CIFAR = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


def _of_torchvision(gives: str, room: str, builder: str, example: str) -> Family:
    """The networks of a ``room`` of ``torchvision.models``, whose ``builder`` is in a module here."""
    return Family(
        "images",
        gives,
        f"{_HERE}.{builder}",
        partial(torchvision_names, room),
        weights=f"{_HERE}.pretrained:torchvision_state",
        recipe=f"{_HERE}.recipe_readers:torchvision_recipe",
        reference=f"{_HERE}.references:torchvision_reference",
        example=example,
    )


FAMILIES = (
    Family("images", "classes", f"{_HERE}.resnet_cifar:build_cifar_resnet", _CIFAR, example="resnet20"),
    Family("images", "classes", f"{_HERE}.scaling:build_vit", ("vit",), example="vit"),
    _of_torchvision("classes", "", "torchvision_models:build_torchvision", "mobilenet_v3_small"),
    Family(
        "images",
        "classes",
        f"{_HERE}.external:build_timm",
        prefix=TIMM,
        weights=f"{_HERE}.pretrained:timm_state",
        recipe=f"{_HERE}.recipe_readers:timm_recipe",
        reference=f"{_HERE}.references:timm_reference",
        example="timm:NAME",
        library="timm",
    ),
    Family(
        "texts",
        "classes",
        f"{_HERE}.sequence:build_sequence_model",
        ("efficient_transformer", "transformer"),
        example="transformer",
    ),
    Family(
        "texts",
        "classes",
        f"{_HERE}.external:build_hf",
        prefix=HF,
        weights=f"{_HERE}.pretrained:hf_state",
        example="hf:NAME_OR_PATH",
        library="transformers",
    ),
    Family(
        "images",
        "classes",
        f"{_HERE}.hf_images:build_hf_images",
        prefix=HF,
        weights=f"{_HERE}.pretrained:hf_image_state",
        recipe=f"{_HERE}.recipe_readers:hf_recipe",
        reference=f"{_HERE}.references:hf_reference",
        example="hf:NAME_OR_PATH",
        library="transformers",
    ),
    Family("images", "masks", f"{_HERE}.unet:build_unet", ("unet",), example="unet"),
    _of_torchvision("masks", "segmentation", "segmentation:build_segmentation", "lraspp_mobilenet_v3_large"),
)
"""Every family. To add one: a line here and its builder."""


def is_user(model: str) -> bool:
    """Whether ``model`` names a function in a file rather than a network of a family or of another package."""
    return USER in model


def family_of(model: str, reads: Reads | None = None) -> Family | None:
    """The family that ``model`` names a network of; ``None`` for a user's own, and for what is in no list.

    ``reads``: which it is where a collection has networks for several kinds of inputs; the first of them if none is.
    """
    having = [] if is_user(model) else [family for family in FAMILIES if _has(family, model)]
    return next((family for family in having if family.reads == reads), having[0] if having else None)


def _has(family: Family, model: str) -> bool:
    return model.startswith(family.prefix) if family.prefix else model in family.listed()


def unlisted(reads: Reads | None = None, gives: str | None = None) -> bool:
    """Whether an unknown name may be of a family for these inputs and answers whose names cannot be listed here."""
    return any(not family.prefix and not family.listed() for family in _those(reads, gives))


def model_names(reads: Reads | None = None, gives: str | None = None) -> list[str]:
    """The names of the networks that read and give this (``None``: anything), sorted; without those of collections."""
    return sorted(name for family in _those(reads, gives) for name in family.listed())


def examples(reads: Reads, gives: str | None = None, *, collections: bool = False) -> list[str]:
    """A name of each family for these inputs and answers, or only of those that are ``collections``."""
    return [f.example for f in _those(reads, gives) if f.example and (f.prefix or not collections)]


def _those(reads: Reads | None, gives: str | None) -> Iterator[Family]:
    for family in FAMILIES:
        if reads in (None, family.reads) and gives in (None, family.gives):
            yield family


def loaded(point: str) -> Any:
    """What ``module:NAME`` names."""
    module, _, name = point.partition(":")
    return getattr(importlib.import_module(module), name)
