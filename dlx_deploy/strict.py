"""Strict TOML: what people write, as frozen structs, with errors that say path, value, rule and nearest name."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from dlx_deploy.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

__all__ = ["decode", "nearest", "parse_toml", "read_toml"]

T = TypeVar("T")


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint for a misspelt name: the nearest valid one, or all there are where none is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"nearest valid name: {close[0]!r}" if close else "valid names: " + ", ".join(sorted(names))


def decode(raw: dict[str, Any], kind: type[T], origin: str) -> T:
    """``raw`` as a ``kind``.

    Raises:
        ConfigError: names ``origin``, the path of the key, the value seen, the rule and the nearest valid name.
    """
    _refuse_unknown(raw, kind, origin, ())
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as e:
        rule, _, where = str(e).partition(" - at `$")
        path = where.rstrip("`").lstrip(".")
        value = _look_up(raw, path)
        choices = _choices(kind, path) if rule.startswith("Invalid enum value") else []
        rule = nearest(str(value), choices) if choices else f"rule: {rule}"
        raise ConfigError(f"{origin}: {path or 'the file'} is {value!r}; {rule}") from e


def read_toml(source: Path | Traversable, origin: str, remedy: str) -> dict[str, Any]:
    """The tables in the file ``source``; ``remedy`` is said where it does not exist.

    Raises:
        ConfigError: the file is missing, cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ConfigError(f"{origin}: no such file; {remedy}") from e
    except OSError as e:
        raise ConfigError(f"{origin}: cannot be read ({e.strerror})") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{origin}: not valid TOML: {e}") from e


def parse_toml(text: str) -> Any:
    """The value that ``text`` spells in TOML, or ``text`` itself where it is no TOML: a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _refuse_unknown(raw: Any, kind: Any, origin: str, path: tuple[str, ...]) -> None:
    if not (isinstance(raw, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        here = (*path, key)
        if key not in fields:
            raise ConfigError(f"{origin}: unknown key {'.'.join(here)!r} ({value!r}); {nearest(key, list(fields))}")
        _refuse_unknown(value, fields[key], origin, here)


def _choices(kind: Any, path: str) -> list[str]:
    """The strings that a ``Literal`` field allows; empty where the field is something else."""
    for part in path.split("."):
        fields = (
            {f.encode_name: f.type for f in msgspec.structs.fields(kind)} if hasattr(kind, "__struct_fields__") else {}
        )
        kind = fields.get(part)
    options = [kind, *get_args(kind)]
    return [str(c) for option in options if get_origin(option) is Literal for c in get_args(option)]


def _look_up(raw: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        try:
            raw = raw[int(part)] if isinstance(raw, list) else raw[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return "missing"
    return raw
