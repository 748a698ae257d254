"""Teachers and their students, for who has named neither, the larger ones first; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlx_deploy.nn.models.families import Reads

__all__ = ["Choice", "Pair", "pairs_for", "students_for"]


@dataclass(frozen=True)
class Choice:
    """A network by its name and arguments."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A network to learn from and the one that is shipped.

    ``training``: what ``[training]`` should say of them, where its defaults do not suit such networks. ``multiple``:
    sides of images must be multiples of it. ``sides``: the sides, in pixels, that the networks are made for.
    """

    teacher: Choice
    student: Choice
    training: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    sides: tuple[int, int] = (1, 512)


# No layer has fewer than 16 channels: with 8 or 12 of them, NHWC and two threads, the gradients of torch 2.14's CPU
# convolutions were seen to write beyond their memory (a crash in training); with 16 and 24 they were not.
_SMALL, _LARGE = (1, 64), (65, 512)
_ENCODER = {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05}
_DENSE = {"optimizer": "adamw", "learning_rate": 0.01, "loss": "cross-entropy+dice", "shift_px": 3}
_PAIRS: dict[tuple[Reads, str], tuple[Pair, ...]] = {
    ("images", "classes"): (
        Pair(Choice("resnet20", {"width": 2.0}), Choice("resnet8", {"width": 1.5}), sides=_SMALL),
        Pair(Choice("resnet20"), Choice("resnet8"), sides=_SMALL),
        Pair(Choice("resnet8", {"width": 2.0}), Choice("resnet8"), sides=_SMALL),
        Pair(Choice("resnet18"), Choice("resnet18", {"width": 0.5}), sides=_LARGE),
        Pair(Choice("resnet18", {"width": 0.5}), Choice("resnet18", {"width": 0.25}), sides=_LARGE),
    ),
    ("images", "masks"): (
        Pair(
            Choice("unet", {"width": 32, "depth": 3}), Choice("unet", {"width": 16, "depth": 3}), _DENSE, 8, (32, 512)
        ),
        Pair(Choice("unet", {"width": 24, "depth": 2}), Choice("unet", {"width": 16, "depth": 2}), _DENSE, 4),
    ),
    ("texts", "classes"): (
        Pair(
            Choice("transformer", {"depth": 3, "width": 96, "heads": 4}),
            Choice("efficient_transformer", {"depth": 2, "width": 64, "heads": 4}),
            _ENCODER,
        ),
        Pair(
            Choice("transformer", {"depth": 2, "width": 64, "heads": 4}),
            Choice("efficient_transformer", {"depth": 1, "width": 48, "heads": 4}),
            _ENCODER,
        ),
    ),
}
_OTHER_STUDENTS: dict[tuple[Reads, str], tuple[Choice, ...]] = {
    ("images", "classes"): (Choice("resnet34"), Choice("resnet18"), Choice("mobilenet_v3_large")),
}
"""Smaller than networks that people name."""


def pairs_for(reads: Reads, gives: str, side: int = 0) -> list[Pair]:
    """The pairs for such inputs and answers, and for images of ``side`` pixels; 0: of any size, or no images."""
    pairs = _PAIRS.get((reads, gives), ())
    return [pair for pair in pairs if not side or pair.sides[0] <= side <= pair.sides[1]]


def students_for(reads: Reads, gives: str, side: int = 0) -> list[Choice]:
    """Networks that may be smaller than one that somebody named."""
    pairs = pairs_for(reads, gives, side)
    more = _OTHER_STUDENTS.get((reads, gives), ()) if not side or side > _SMALL[1] else ()
    return [*more, *(pair.teacher for pair in pairs), *(pair.student for pair in pairs)]
