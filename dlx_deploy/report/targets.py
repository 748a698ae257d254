"""Targets as people look at them."""

from __future__ import annotations

import msgspec

from dlx_deploy.devices.choice import device_for
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.words import line
from dlx_deploy.targets import Alias, Profile, list_aliases, list_targets, load_target
from dlx_deploy.targets.hazards import hazards_on

__all__ = ["ProfileView", "TargetsView", "view_target", "view_targets"]


class TargetsView(msgspec.Struct, frozen=True):
    """Every built-in target and alias."""

    targets: tuple[Profile, ...]
    aliases: dict[str, Alias]

    @property
    def data(self) -> TargetsView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A table, the aliases behind the target that each means."""
        names: dict[str, list[str]] = {}
        for alias, entry in self.aliases.items():
            names.setdefault(entry.target, []).append(alias)
        rows = [
            [p.name, p.title, p.compute_capability or p.arch, ", ".join(p.precisions), ", ".join(names.get(p.name, []))]
            for p in self.targets
        ]
        return format_table(["target", "what it is", "CC", "precisions", "aliases"], rows)


class ProfileView(msgspec.Struct, frozen=True):
    """One profile; ``note``: what its name stands for; ``device``: what it is here, if it can be measured."""

    profile: Profile
    note: str
    device: str

    @property
    def data(self) -> Profile:
        """The profile alone."""
        return self.profile

    @property
    def text(self) -> str:
        """A table of every field."""
        lines = [self.note] if self.note else []
        lines.append(f"{self.profile.title}{f' ({self.device})' if self.device else ''}")
        rows = [[path, _cell(value)] for path, value in _flatten(msgspec.to_builtins(self.profile), "")]
        rows += [["hazards", f"{found.hazard.id} ({found.where})"] for found in hazards_on(self.profile)]
        return "\n".join([*map(line, lines), format_table(["field", "value"], rows)])


def view_targets() -> TargetsView:
    """Every target and alias."""
    return TargetsView(tuple(list_targets()), dict(list_aliases()))


def view_target(name: str) -> ProfileView:
    """The profile that ``name`` means.

    Raises:
        ConfigError: no such target.
    """
    target = load_target(name)
    device = device_for(target.profile)
    return ProfileView(target.profile, target.note, device.name if device else "")


def _flatten(value: object, path: str) -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [row for key, item in value.items() for row in _flatten(item, f"{path}.{key}".lstrip("."))]


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
