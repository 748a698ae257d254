"""The commented configuration that ``dlx-deploy init`` writes: ``deploy.toml`` beside this file, as it is."""

from __future__ import annotations

from importlib import resources

__all__ = ["render"]


def render() -> str:
    """The text of a ``deploy.toml`` with every key at its default."""
    return (resources.files("dlx_deploy.config") / "deploy.toml").read_text(encoding="utf-8")
