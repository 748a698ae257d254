"""What is asked of pruning: a goal, what ranks channels, and how finely and how long to look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from dlx_deploy.config import Prune
from dlx_deploy.nn.pruning.search import TOLERANCE
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.losses import LossFn
from dlx_deploy.progress import Progress, silent

__all__ = ["Goal", "Grounds", "Meter", "Order", "goal_of", "order_of"]

Key = Literal["reduce_macs", "reduce_parameters", "reduce_latency", "max_latency_ms"]
_NOUNS: dict[Key, str] = {
    "reduce_macs": "multiply-accumulates",
    "reduce_parameters": "parameters",
    "reduce_latency": "latency",
    "max_latency_ms": "latency",
}


@dataclass(frozen=True)
class Meter:
    """What tells how many milliseconds a network takes on the target; ``basis``: how it knows, for whoever reads it."""

    ms: Callable[[nn.Module], float]
    basis: str


@dataclass(frozen=True)
class Grounds:
    """What pruning may look at beside the weights: some batches of the training split, and a loss for them.

    ``batches`` can be gone through several times; ``None``: there are no data yet. ``meter``: where the goal is a
    latency.
    """

    batches: Iterable[Batch] | None = None
    loss: LossFn | None = None
    meter: Meter | None = None
    progress: Progress = silent


@dataclass(frozen=True)
class Goal:
    """The key of ``[prune]`` that says how much is to go, and its value: a share, 0..1, or milliseconds that may stay.

    ``basis``: how a latency is known.
    """

    key: Key = "reduce_macs"
    asked: float = 0.2
    basis: str = ""

    @property
    def is_latency(self) -> bool:
        """Whether a ``Meter`` tells what a network costs."""
        return bool(self.basis)

    @property
    def near(self) -> float:
        """How near to the share is near enough: a latency is to be kept, and slow to tell."""
        return 0.0 if self.is_latency else TOLERANCE

    def share(self, before: float) -> float:
        """What share of ``before`` must go, 0..1."""
        return max(1 - self.asked / before, 0.0) if self.key == "max_latency_ms" else self.asked

    def of_round(self, number: int, rounds: int, done: float) -> Goal:
        """Of a share the part that round ``number`` of ``rounds`` takes of what is left, of which 1 - ``done`` is.

        ``done``: the share that earlier rounds took. Each is to take the same share of what it finds.
        """
        return replace(self, asked=max(1 - (1 - self.asked) ** (number / rounds) / (1 - done), 0.0))

    def reach(self, share: float, before: float) -> str:
        """That ``share`` of ``before`` is what can go at most, in a sentence."""
        if self.key == "max_latency_ms":
            return f"at least {(1 - share) * before:.3g} of {before:.3g} ms stay ({self.basis})"
        how = f" ({self.basis})" if self.basis else ""
        return f"at most {share:.3f} of the {_NOUNS[self.key]}{how} can be removed"

    def nearest(self, share: float, before: float) -> str:
        """The nearest value that can be reached where at most ``share`` goes, as advice; empty: there is none."""
        if self.key == "max_latency_ms":
            return f"raise prune.max_latency_ms to {math.ceil(1000 * (1 - share) * before) / 1000:g}"
        here = math.floor(1000 * share) / 1000
        return f"lower prune.{self.key} to {here:g}" if here > 0 else ""

    def most(self, share: float, before: float) -> str:
        """What another choice could reach."""
        return f"at least {(1 - share) * before:.3g} ms" if self.key == "max_latency_ms" else f"at most {share:.3f}"

    def told(self, before: float, after: float) -> str:
        """What was asked and what was reached, in a sentence."""
        reached = 1 - after / before
        if self.key == "max_latency_ms":
            text = f"{after:.3g} of {before:.3g} ms are left, at most {self.asked:g} asked (prune.max_latency_ms)"
        else:
            text = f"{reached:.3f} of the {_NOUNS[self.key]} removed, {self.asked:g} asked (prune.{self.key})"
        text += f"; {self.basis}" if self.basis else ""
        if reached > self.share(before) + TOLERANCE:
            text += "; the smallest step that reaches it takes more: a smaller prune.round_to has finer steps"
        return text


@dataclass(frozen=True)
class Order:
    """A goal and the rest of ``[prune]`` that decides which channels go."""

    goal: Goal = Goal()
    round_to: int = 8
    keep_trunk: bool = True
    trace_seconds: float = 300.0
    importance: Literal["l2", "taylor"] = "l2"
    grouping: Literal["layer", "isomorphic"] = "layer"
    reconstruct: bool = False
    grounds: Grounds = Grounds()


def goal_of(params: Prune, meter: Meter | None = None) -> Goal:
    """The one goal that ``[prune]`` sets; none set is no multiply-accumulates. ``meter`` where it is a latency."""
    for key in _NOUNS:
        if value := float(getattr(params, key)):
            return Goal(key, value, meter.basis if meter and "latency" in key else "")
    return Goal(asked=0.0)


def order_of(params: Prune, grounds: Grounds) -> Order:
    """What ``[prune]`` asks, by ``grounds``: where that has no batches weights say what there is to say."""
    importance = params.importance if grounds.batches is not None else "l2"
    return Order(
        goal_of(params, grounds.meter),
        params.round_to,
        params.keep_trunk,
        params.trace_seconds,
        importance,
        params.grouping,
        params.reconstruct,
        grounds,
    )
