"""How far a graph's answers may be from its network's, or in other batches from its own."""

from __future__ import annotations

__all__ = ["ROUNDING", "ROWS_SHARE"]

ROWS_SHARE = 0.1
"""Of the parity tolerance: what the size of a batch may change, since sums are then taken in another order."""
ROUNDING = 2e-5
"""What it changes in float32 at most, so that a strict parity does not refuse it."""
