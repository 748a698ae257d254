"""What was tried to make the integers better, and what of it was kept: ``decisions.json``."""

from __future__ import annotations

import msgspec

__all__ = ["SCHEMA", "Decision", "Decisions", "decisions_bytes"]

SCHEMA = 1


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A step: how near the answers were before it, and how near with what it proposes.

    ``sqnr_db``: signal over noise of the answers to inputs that were held out (``kit.judge``); ``agreement``: 0 to 1,
    or ``None`` where nothing is decided; neither has an ``after`` where nothing was proposed. ``why``: it was not kept.
    """

    step: str
    kept: bool
    sqnr_db_before: float
    sqnr_db_after: float | None = None
    agreement_before: float | None = None
    agreement_after: float | None = None
    why: str = ""


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """``decisions.json``: ``fitted`` calibration inputs were learned from, ``held`` others judged by.

    ``note``: why nothing was tried, or what the figures cannot tell.
    """

    schema: int = SCHEMA
    effort: str = "fast"
    fitted: int = 0
    held: int = 0
    note: str = ""
    steps: tuple[Decision, ...] = ()


def decisions_bytes(decisions: Decisions) -> bytes:
    """JSON for people and machines; equal decisions give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(decisions), indent=1) + b"\n"
