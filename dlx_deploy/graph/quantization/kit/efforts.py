"""How much is tried: a name for each list of steps, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dlx_deploy.graph.quantization.kit.better_ranges import by_method
from dlx_deploy.graph.quantization.kit.block_scales import least_squares
from dlx_deploy.graph.quantization.kit.correction import correct_biases
from dlx_deploy.graph.quantization.kit.equalisation import equalise, smooth
from dlx_deploy.graph.quantization.kit.learned_rounding import learn_rounding
from dlx_deploy.graph.quantization.kit.state import Step

__all__ = ["Effort", "measured_ahead", "steps_again", "steps_in", "steps_of"]

Effort = Literal["fast", "balanced", "best"]

EQUAL = Step("cross-layer equalisation", equalise)
SMOOTH = Step("smoothing", smooth)
ROUNDING = Step("learned rounding", learn_rounding)
BLOCK_SCALES = Step("block scales by mse", least_squares)
BIASES = Step("bias correction", correct_biases)
"""The last: it takes back what all others leave."""

_STEPS: Mapping[Effort, tuple[Step, ...]] = {
    "fast": (),
    "balanced": (by_method("mse"), BIASES),
    "best": (EQUAL, SMOOTH, by_method("mse"), by_method("percentile"), by_method("entropy"), ROUNDING, BIASES),
}


_BLOCK_STEPS: Mapping[Effort, tuple[Step, ...]] = {
    "fast": (),
    "balanced": (BLOCK_SCALES, BIASES),
    "best": (BLOCK_SCALES, ROUNDING, BIASES),
}


_FP8_STEPS: Mapping[Effort, tuple[Step, ...]] = {"fast": (), "balanced": (BIASES,), "best": (BIASES,)}
"""Other ranges are sought for even steps; those of E4M3 are not."""


def steps_in(precision: str, effort: Effort, method: str) -> tuple[Step, ...]:
    """What is tried for layers in ``precision``; ``method``: as of ``steps_of``."""
    own = {"int4": _BLOCK_STEPS, "fp8": _FP8_STEPS}.get(precision)
    return own[effort] if own else steps_of(effort, method)


def steps_of(effort: Effort, method: str) -> tuple[Step, ...]:
    """What is tried, where ranges were found by ``method``: one that was chosen is weighed against the plain one."""
    plain = (by_method("minmax"),) if method != "minmax" else ()
    return (*plain, *_STEPS[effort]) if effort != "fast" else ()


def measured_ahead(effort: Effort, method: str) -> tuple[str, ...]:
    """The methods of which the first steps need ranges of the network as it came, where one pass can give them all.

    A histogram that was asked for sees whole blocks of inputs, as without any effort.
    """
    return ("mse",) if effort == "balanced" and method == "minmax" else ()


def steps_again(effort: Effort) -> tuple[Step, ...]:
    """What of ``effort`` does not hold for a graph with fewer INT8 layers, to whose plan all else was given back."""
    return (BIASES,) if BIASES in _STEPS[effort] else ()
