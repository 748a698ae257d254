"""Samples that a package answers otherwise than its network in floating point, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dlx_deploy.debugging.answers import Labelled
from dlx_deploy.report.debug_facts import ConfusionCell, Flip
from dlx_deploy.runtime.statistics.beta import incomplete_beta
from dlx_deploy.tasks.told import Told

__all__ = ["chance_note", "confusions", "flips_between"]

CHANCE = 0.05
"""Of a sign test: above it flips in one direction are no more than a coin would give."""

Direction = Literal["lost", "won", "other"]


def flips_between(before: Told, after: Told, labelled: Labelled) -> tuple[Flip, ...]:
    """Lost ones first, then those that were won; of each the one that the package is surest of first."""
    change = after.right - before.right
    found: list[Flip] = []
    for number in range(len(change)):
        direction: Direction = "lost" if change[number] < 0 else "won" if change[number] > 0 else "other"
        turned = abs(change[number]) >= before.turned
        if not turned and (change[number] or before.answers[number] == after.answers[number]):
            continue
        found.append(
            Flip(
                number=number,
                name=labelled.names[number] if labelled.names else "",
                text=labelled.texts[number] if labelled.texts else "",
                direction=direction,
                wanted=before.wanted[number],
                before=before.answers[number],
                before_confidence=round(float(before.confidence[number]), 4),
                after=after.answers[number],
                after_confidence=round(float(after.confidence[number]), 4),
            )
        )
    order = ("lost", "won", "other")
    return tuple(sorted(found, key=lambda flip: (order.index(flip.direction), -flip.after_confidence)))


def confusions(before: Told, after: Told) -> tuple[ConfusionCell, ...]:
    """Every pair of classes that was answered at least once, row by row."""
    cells = np.argwhere((before.confusion > 0) | (after.confusion > 0))
    return tuple(
        ConfusionCell(
            wanted=before.names[row],
            answered=before.names[column],
            before=int(before.confusion[row, column]),
            after=int(after.confusion[row, column]),
        )
        for row, column in cells
    )


def chance_note(flips: Sequence[Flip]) -> str:
    """That as many ``flips`` lost and won may be chance, by the exact sign test (McNemar's, two-sided); else empty."""
    lost, won = (sum(flip.direction == way for flip in flips) for way in ("lost", "won"))
    if lost <= won:
        return ""
    chance = min(2 * incomplete_beta(0.5, lost, won + 1), 1.0)  # of a coin with as few heads, or as many
    if chance <= CHANCE:
        return ""
    return (
        f"{lost} lost against {won} won may be chance (sign test: p = {chance:.2f}); look at more samples before a "
        "layer is given up for it"
    )
