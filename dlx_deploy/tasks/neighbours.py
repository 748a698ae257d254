"""What other servers of models are told of a task's answers: Triton, and the inference element of DeepStream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Served"]


@dataclass(frozen=True)
class Served:
    """Answers in the words of others.

    ``labels``: the names of the classes, in the order of the scores on axis 1 of the output. ``ranked``: whether a
    sample has one score for each label and no more, so that a server can give back the best of them by name.
    ``nvinfer``: the keys of ``[property]`` that say to DeepStream what such answers are.
    """

    labels: tuple[str, ...]
    ranked: bool
    nvinfer: Mapping[str, str] = field(default_factory=dict)
