"""Strict TOML: what people write, as frozen structs, with errors that say path, value, rule and nearest name."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.files import TooLarge, read_file
from dlx_deploy.runtime.words import shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from msgspec import inspect

    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

__all__ = ["Table", "decode", "nearest", "parse_text", "parse_toml", "read_toml"]

T = TypeVar("T")
Table = dict[str, Any]
"""A table of TOML: whatever it holds, until it is decoded."""
MAX_BYTES = 16 * 1024**2


def nearest(name: str, names: Sequence[str], count: int = 1) -> str:
    """A hint for a misspelt name: the nearest valid one, or so many, or all there are where none is near."""
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if not close:
        return "valid names: " + ", ".join(sorted(names))
    return f"nearest valid name{'s' * (len(close) > 1)}: {', '.join(map(repr, close))}"


def decode(raw: Table, kind: type[T], origin: str) -> T:
    """``raw`` as a ``kind``.

    Raises:
        ConfigError: names ``origin``, the path of the key, the value seen, the rule and the nearest valid name.
    """
    _refuse_unknown(raw, kind, origin, ())
    _refuse_infinite(raw, origin, "")
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as e:
        rule, _, where = str(e).partition(" - at `$")
        path = where.rstrip("`").lstrip(".")
        value = _look_up(raw, path)
        raise ConfigError(
            f"{origin}: {path or 'the file'} is {shortened(value)}; {_advice(kind, path, value, rule)}"
        ) from e


def read_toml(source: Path | Traversable, origin: str, remedy: str) -> Table:
    """The tables in the file ``source``; ``remedy`` is said where it does not exist.

    Raises:
        ConfigError: the file is missing, cannot be read, or is not TOML.
    """
    try:
        data = read_file(source, MAX_BYTES) if isinstance(source, Path) else source.read_bytes()
        return parse_text(data.decode("utf-8").replace("\r\n", "\n"), origin)
    except TooLarge as e:
        raise ConfigError(f"{origin}: has {e} bytes; at most {MAX_BYTES} are read") from e
    except FileNotFoundError as e:
        raise ConfigError(f"{origin}: no such file; {remedy}") from e
    except OSError as e:
        raise ConfigError(f"{origin}: cannot be read ({e.strerror})") from e
    except ValueError as e:  # no UTF-8
        raise ConfigError(f"{origin}: not valid TOML: {e}") from e


def parse_text(text: str, origin: str) -> Table:
    """The tables in ``text``.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # a number of 5,000 digits, 1,000 brackets
        raise ConfigError(f"{origin}: not valid TOML: {e}") from e


def parse_toml(text: str) -> object:
    """The value that ``text`` spells in TOML, or ``text`` itself where it is no TOML: a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def _refuse_infinite(raw: object, origin: str, path: str) -> None:
    """TOML has inf and nan; a comparison with the latter is false, and JSON, which we write, has neither."""
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, (list, tuple)) else ()
    for key, value in items:
        here = f"{path}[{key}]" if isinstance(raw, (list, tuple)) else f"{path}.{key}".lstrip(".")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{origin}: {here} is {value}; rule: a finite number")
        _refuse_infinite(value, origin, here)


def _refuse_unknown(raw: object, kind: object, origin: str, path: tuple[str, ...]) -> None:
    if not (isinstance(raw, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        here = (*path, key)
        if key not in fields:
            raise ConfigError(
                f"{origin}: unknown key {'.'.join(here)!r} ({shortened(value)}); {nearest(key, list(fields))}"
            )
        _refuse_unknown(value, fields[key], origin, here)


def _choices(kind: object, path: str) -> list[str]:
    """The strings that a ``Literal`` field allows; empty where the field is something else."""
    for part in path.split("."):
        fields = msgspec.structs.fields(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()
        kind = next((f.type for f in fields if f.encode_name == part), None)
    options = [kind, *get_args(kind)]
    return [str(c) for option in options if get_origin(option) is Literal for c in get_args(option)]


def _advice(kind: type[object], path: str, value: object, rule: str) -> str:
    """The rule that ``value`` breaks, in words, and a value that keeps it; of ours, the rule alone: it says all."""
    allowed, default = _allowed(kind, path)
    choices = _choices(kind, path)
    if rule.startswith("Invalid enum value") and choices:
        other = allowed.partition(" or ")[2] if " or " in allowed else ""
        return nearest(str(value), choices) + (f"; or {other}" if other else "")
    words = f": {allowed}" if allowed and rule.startswith("Expected") else ""
    example = f"; for instance: {default}" if words and default else ""
    return f"rule: {rule}{words}{example}"


def _allowed(kind: type[object], path: str) -> tuple[str, str]:
    """What may stand at ``path``, in words, and its default as a line of TOML; empty where that is not known."""
    from msgspec import inspect

    here, example = inspect.type_info(kind), ""
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(here, inspect.StructType):
            field = next((f for f in here.fields if f.encode_name == part), None)
            if field is None:
                return "", ""
            here, example = field.type, _as_toml(part, field.default)
        elif isinstance(here, (inspect.VarTupleType, inspect.ListType)):
            here = here.item_type
        elif isinstance(here, inspect.DictType):
            here = here.value_type
    return _in_words(here), example


def _in_words(kind: object) -> str:
    from msgspec import inspect

    if isinstance(kind, inspect.UnionType):
        parts = sorted(map(_in_words, kind.types), key=lambda words: not words.startswith("'"))
        return " or ".join(part for part in parts if part)
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(map(repr, kind.values))
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
        least = f", {kind.min_length} or more of them" if kind.min_length else ""
        return f"a list in brackets, of {_in_words(kind.item_type) or 'values'} each{least}"
    if isinstance(kind, (inspect.StructType, inspect.DictType)):
        return "a table of KEY = VALUE"
    if isinstance(kind, inspect.StrType):
        return "text in quotes" + (f" that fits {kind.pattern}" if kind.pattern else "")
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, (inspect.IntType, inspect.FloatType)):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return noun + "".join(f", {text} {limit:g}" for text, limit in _limits(kind) if limit is not None)
    return ""


def _limits(kind: inspect.IntType | inspect.FloatType) -> tuple[tuple[str, float | None], ...]:
    return ("at least", kind.ge), ("more than", kind.gt), ("at most", kind.le), ("less than", kind.lt)


def _as_toml(key: str, value: object) -> str:
    """``key = value`` for plain values; empty for tables and where there is no default."""
    if isinstance(value, bool):
        return f"{key} = {str(value).lower()}"
    if isinstance(value, (str, int, float)):
        return f"{key} = {value!r}".replace("'", '"')
    return f"{key} = {list(value)!r}".replace("'", '"') if isinstance(value, tuple) else ""


def _look_up(raw: object, path: str) -> object:
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, list) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
        elif isinstance(raw, dict) and part in raw:
            raw = raw[part]
        else:
            return "missing"
    return raw
