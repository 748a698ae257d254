"""Targets as people look at them."""

from __future__ import annotations

from typing import Any

import msgspec

from dlx_deploy.devices.choice import device_for
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.words import line
from dlx_deploy.targets import list_aliases, list_targets, load_target

__all__ = ["describe_target", "describe_targets"]


def describe_targets() -> tuple[Any, str]:
    """Every target and alias, as data and as a table."""
    profiles, aliases = list_targets(), list_aliases()
    names: dict[str, list[str]] = {}
    for alias, entry in aliases.items():
        names.setdefault(entry.target, []).append(alias)
    rows = [
        [p.name, p.title, p.compute_capability or p.arch, ", ".join(p.precisions), ", ".join(names.get(p.name, []))]
        for p in profiles
    ]
    data = {"targets": msgspec.to_builtins(profiles), "aliases": msgspec.to_builtins(aliases)}
    return data, format_table(["target", "what it is", "CC", "precisions", "aliases"], rows)


def describe_target(name: str) -> tuple[Any, str]:
    """One profile, every field, as data and as text.

    Raises:
        ConfigError: no such target.
    """
    target = load_target(name)
    data = msgspec.to_builtins(target.profile)
    lines = [target.note] if target.note else []
    device = device_for(target.profile)
    lines.append(f"{target.profile.title}{f' ({device.name})' if device else ''}")
    rows = [[path, _text(value)] for path, value in _flatten(data, "")]
    return data, "\n".join([*map(line, lines), format_table(["field", "value"], rows)])


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [row for key, item in value.items() for row in _flatten(item, f"{path}.{key}".lstrip("."))]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
