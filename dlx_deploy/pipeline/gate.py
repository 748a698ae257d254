"""What a gate says of one metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from dlx_deploy.errors import GateFailed, GateStopped, GateUndecided
from dlx_deploy.runtime.statistics.drops import Decision

__all__ = ["GateResult", "Verdict", "stop_unless_passed"]

Verdict = Literal[Decision, "pending"]
"""``pending``: this machine cannot measure it (another board must); it neither passes nor stops the build."""


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One budget, judged. ``bound`` is the confidence bound that was held against ``limit``."""

    gate: str
    metric: str
    value: float | None
    bound: float | None
    limit: float
    verdict: Verdict
    text: str
    """One sentence for a person, remedy included."""


def stop_unless_passed(step: str, results: Sequence[GateResult]) -> None:
    """Return if no gate of ``step`` failed or is undecided.

    Raises:
        GateFailed: one of them failed.
        GateUndecided: none failed, but one is undecided.
    """
    kinds: tuple[tuple[Verdict, type[GateStopped]], ...] = (("fail", GateFailed), ("undecided", GateUndecided))
    for verdict, error in kinds:
        texts = [r.text for r in results if r.verdict == verdict]
        if texts:
            raise error(f"{step}: " + "; ".join(texts))
