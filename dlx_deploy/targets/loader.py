"""A target by name, by alias, by the path of one's own board file, or from another package's entry point.

Another package offers a target with an entry point in the group ``dlx_deploy.targets``: its name is the target's,
its value a function without arguments that returns the path of a board file. It is asked for unknown names only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config.strict import Table, decode, read_toml
from dlx_deploy.errors import ConfigError
from dlx_deploy.plugins import load_plugin
from dlx_deploy.runtime.schemas import newer_schema
from dlx_deploy.targets.checks import check
from dlx_deploy.targets.profile import SCHEMA, Profile

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

__all__ = ["Alias", "Target", "list_aliases", "list_targets", "load_target"]


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A short name for a built-in target, and why this one."""

    target: str
    reason: str


class Target(msgspec.Struct, frozen=True):
    """A profile and what to tell the user about the name that led to it (empty: nothing)."""

    profile: Profile
    note: str = ""


def load_target(name_or_path: str | Path) -> Target:
    """The target that ``name_or_path`` means; text with a path separator or ending in ``.toml`` is a path.

    Raises:
        ConfigError: the name is unknown, or the board file is missing, no TOML, or not a consistent profile.
    """
    text = os.fspath(name_or_path)
    return _load(text, Path(text), ())


def list_targets() -> list[Profile]:
    """Every built-in profile, by name."""
    return [_builtin(name) for name in _builtin_names()]


def list_aliases() -> dict[str, Alias]:
    """Every built-in alias, by name."""
    table = _parse(_data("aliases.toml"), "aliases.toml")
    return {name: decode(entry, Alias, f"aliases.toml: {name}") for name, entry in sorted(table.items())}


def _load(text: str, path: Path, seen: tuple[Path, ...]) -> Target:
    if text.endswith(".toml") or "/" in text or os.sep in text:
        return Target(_own(path, seen))
    if _is_builtin(text):
        return Target(_builtin(text))
    aliases = list_aliases()
    if text in aliases:
        profile = _builtin(aliases[text].target)
        return Target(profile, f"{text} is an alias of {profile.name} ({profile.title})")
    return Target(_own(_from_entry_point(text, aliases), seen, text))


def _own(path: Path, seen: tuple[Path, ...], name: str = "") -> Profile:
    """The profile in a user's file; a file that ``extends`` another target writes only what differs."""
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(p.name for p in (*seen, here))
        raise ConfigError(f"{path}: extends goes in a circle ({chain}); start from a built-in target")
    raw = {"name": name or path.stem, **_parse(path, str(path))}
    if "extends" in raw:
        raw = _extended(raw, path, (*seen, here))
    _refuse_missing(raw, Profile, str(path), "")
    profile = check(decode(raw, Profile, str(path)), str(path))
    if _is_builtin(profile.name) or profile.name in list_aliases():
        raise ConfigError(f"{path}: name is {profile.name!r}, which is a built-in target; choose another name")
    return profile


def _extended(raw: Table, path: Path, seen: tuple[Path, ...]) -> Table:
    text = raw.pop("extends")
    if not isinstance(text, str):
        raise ConfigError(
            f"{path}: extends is {text!r}; rule: the name or path of one target, as in 'jetson-orin-nx-8gb'"
        )
    try:
        parent = _load(text, path.parent / text, seen).profile
    except ConfigError as e:
        raise ConfigError(f"{path}: extends {text!r}: {e}") from e
    raw.setdefault("title", f"{raw['name']} (from {parent.title})")
    return _merged(msgspec.to_builtins(parent), raw)


def _merged(base: Table, over: Table) -> Table:
    """``base`` with the keys of ``over``: tables key by key, everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _refuse_missing(raw: Mapping[str, object], kind: type[msgspec.Struct], origin: str, prefix: str) -> None:
    for field in msgspec.structs.fields(kind):
        path = prefix + field.encode_name
        if field.required and field.encode_name not in raw:
            raise ConfigError(
                f"{origin}: key {path!r} is missing; write it, or start from a known target: "
                'extends = "jetson-orin-nano-8gb"'
            )
        value = raw.get(field.encode_name)
        if isinstance(value, dict) and isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            _refuse_missing(value, field.type, origin, f"{path}.")


def _from_entry_point(name: str, aliases: Mapping[str, Alias]) -> Path:
    plugin = load_plugin("target", name, [*_builtin_names(), *aliases], "or give a file: --target ./board.toml")
    function = plugin.value
    path = function() if callable(function) else function
    if not callable(function) or not isinstance(path, (str, Path)):
        raise ConfigError(
            f"target {name!r}: entry point {plugin.point!r} gives {path!r}; rule: a function without arguments that "
            "returns the path of a board file"
        )
    return Path(path)


def _data(*parts: str) -> Traversable:
    place = files("dlx_deploy.targets")
    for part in parts:
        place = place.joinpath(part)
    return place


def _builtin_names() -> list[str]:
    names = (entry.name for entry in _data("profiles").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _is_builtin(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) is not None and _data("profiles", f"{name}.toml").is_file()


def _builtin(name: str) -> Profile:
    origin = f"{name}.toml"
    return check(decode(_parse(_data("profiles", origin), origin), Profile, origin), origin)


def _parse(source: Traversable, origin: str) -> Table:
    raw = read_toml(source, origin, "the built-in targets: dlx-deploy targets list")
    schema = raw.get("schema", SCHEMA)
    if newer := newer_schema(schema, SCHEMA):
        raise ConfigError(f"{origin}: {newer}")
    if schema != SCHEMA:
        raise ConfigError(f"{origin}: schema is {schema!r}; rule: {SCHEMA}, or leave it out")
    return raw
