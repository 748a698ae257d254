"""Which images a file with a finished network reads, as far as it says so; no onnx and no torch."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.graph.foreign.usable import Picture, picture_of, usable_facts

__all__ = ["picture_in"]


def picture_in(path: Path) -> Picture | None:
    """The size of the images that the network in ``path`` reads; ``None`` where it takes any.

    Raises:
        ConfigError: it cannot be read, or used.
    """
    return picture_of(usable_facts(path))
