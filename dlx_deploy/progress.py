"""How long work tells whoever watches how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called as work goes on; must be cheap and must not raise."""

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """``done`` of ``total`` units are finished; ``text`` is a short remark."""


def silent(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""
