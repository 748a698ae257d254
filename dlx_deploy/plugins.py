"""What other installed packages offer through entry points; they are asked for unknown names only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError

__all__ = ["Plugin", "load_plugin", "provider"]

GROUPS = "dlx_deploy"  # groups of entry points are named GROUPS.stages, GROUPS.tasks and so on


@dataclass(frozen=True)
class Plugin:
    """``value``: what the entry point ``point`` (``module:NAME``) of ``distribution`` names."""

    value: object
    point: str
    distribution: str


def provider(noun: str, name: str) -> str:
    """The distribution that offers the ``noun`` called ``name``; empty if none does. Nothing of it is imported."""
    from importlib.metadata import entry_points

    point = {point.name: point for point in entry_points(group=f"{GROUPS}.{noun}s")}.get(name)
    return point.dist.name if point is not None and point.dist else ""


def load_plugin(noun: str, name: str, known: Sequence[str], remedy: str) -> Plugin:
    """The ``noun`` called ``name`` that a package offers in the group ``dlx_deploy.NOUNs``.

    ``known``: the names that are found without asking; ``remedy``: what else to do, where nobody offers it.

    Raises:
        ConfigError: nobody does, or it cannot be loaded.
    """
    from importlib.metadata import entry_points  # slow to import, and needed for unknown names only

    offered = {point.name: point for point in entry_points(group=f"{GROUPS}.{noun}s")}
    if name not in offered:
        raise ConfigError(f"{noun} {name!r} is not known; {nearest(name, [*known, *offered])}; {remedy}")
    point = offered[name]
    try:
        value = point.load()
    except Exception as e:  # what another package does when it is imported may raise anything
        raise ConfigError(
            f"{noun} {name!r}: entry point {point.value!r} cannot be loaded ({type(e).__name__}: {e}); reinstall it"
        ) from e
    return Plugin(value, point.value, point.dist.name if point.dist else "")
