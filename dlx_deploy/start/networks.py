"""Which networks, of which size of images, the time suffices for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.overview import Overview
from dlx_deploy.nn.models.pairs import Choice, Pair, pairs_for, students_for
from dlx_deploy.start.budget import Budget
from dlx_deploy.tasks import Task

__all__ = ["LARGEST", "Networks", "choose_pair", "natural_side", "sized", "smaller_than"]

_SIDES = (224, 160, 128, 96, 64, 48, 32)
LARGEST = _SIDES[0]
"""Pixels of a side: what networks are made for."""
_TIMED_SIDE = 64
"""The size of images at which the machine is timed: more takes long, less is not what it will do."""
_SMALLER = 0.7
"""A student has at most so much of its teacher's parameters and operations."""


@dataclass(frozen=True)
class Networks:
    """``side``: of the images, in pixels, 0 for texts. ``why``: of this size and these networks."""

    pair: Pair
    side: int
    why: str


def natural_side(seen: Overview) -> int:
    """The side that the images have themselves, at most what networks are made for; 0 where there are none."""
    shorter = min(seen.height, seen.width)
    if shorter <= _SIDES[-1]:
        return shorter
    return next(side for side in _SIDES if side <= shorter)


def choose_pair(seen: Overview, task: Task, budget: Budget) -> tuple[Networks, Budget]:
    """The largest images and networks that the time suffices for, and the budget of this machine, timed.

    Raises:
        ConfigError: no networks are known for such data.
    """
    reads, gives = task.inputs.reads, task.answers.gives
    if not pairs_for(reads, gives):
        raise ConfigError(f"no networks are known that read {reads} and give {gives}; name one by --model")
    natural = natural_side(seen)
    small = min(natural, _TIMED_SIDE)
    pair = pairs_for(reads, gives, small)[-1]
    timed = budget.of(sized(budget.data, _rounded(small, pair.multiple))).timed(pair.teacher)
    chosen: Networks | None = None
    for side, pair in _combinations(natural, task):
        here = budget.of(sized(budget.data, side), timed)
        chosen = Networks(pair, side, _why(side, natural, "the largest that the time suffices for"))
        if here.suffices(pair):
            return chosen, here
    assert chosen is not None, "there are pairs"
    return Networks(chosen.pair, chosen.side, "the smallest; the time does not suffice for it"), here


def smaller_than(teacher: Choice, task: Task, budget: Budget, side: int) -> Choice | None:
    """The largest student that is clearly smaller than ``teacher``; ``None`` where none is known."""
    cost = budget.cost(teacher)
    fitting: list[tuple[int, Choice]] = []
    for student in students_for(task.inputs.reads, task.answers.gives, side):
        own = budget.cost(student)
        less = own.parameters <= _SMALLER * cost.parameters and (own.macs or 0) <= _SMALLER * (cost.macs or 1e18)
        if less:
            fitting.append((own.macs or own.parameters, student))
    return max(fitting, key=lambda one: one[0])[1] if fitting else None


def _combinations(natural: int, task: Task) -> Iterator[tuple[int, Pair]]:
    """Sizes of images from ``natural`` down, and for each the pairs that it suits, the larger ones first."""
    sides: Sequence[int] = [natural, *(side for side in _SIDES if side < natural)]
    for side in sides:
        for pair in pairs_for(task.inputs.reads, task.answers.gives, side):
            yield _rounded(side, pair.multiple), pair


def _rounded(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _why(side: int, natural: int, otherwise: str) -> str:
    return f"the images' own size, at most {LARGEST}" if side >= natural else otherwise


def sized(data: Data, side: int) -> Data:
    """``data`` of images of ``side`` pixels; as they are where ``side`` is 0."""
    return replace(data, height=side) if side else data
