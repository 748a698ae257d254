"""The commented configuration that ``dlx-deploy init`` writes: ``deploy.toml`` beside this file, with other values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError

__all__ = ["render", "toml_value"]

_SECTION = re.compile(r"\[(\w+)\]")
_KEY = re.compile(r"(?P<key>\w+) = (?P<value>.*?)(?P<gap> *)(?P<comment>#.*)?")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LEAST_GAP = 1


def render(values: Mapping[str, object] | None = None, reasons: Mapping[str, str] | None = None) -> str:
    """The text of a ``deploy.toml`` with every key at its default, but for ``values``.

    ``values``: ``section.key`` (or the ``key`` of no section) → what it is instead. ``reasons``: for some of them, a
    comment that is put above. A key that a section only inherits stands at the end of that section.

    Raises:
        ConfigError: the file has no such section or key of no section.
    """
    left, said = dict(values or {}), reasons or {}
    lines: list[str] = []
    section = ""
    for line in _default().splitlines():
        if header := _SECTION.match(line):
            _close_section(lines, section, left, said)
            section = header[1]
        found = _KEY.fullmatch(line)
        name = f"{section}.{found['key']}".lstrip(".") if found else ""
        if found and name in left:
            lines += [*_comment(said.get(name)), _changed(found, left.pop(name))]
        else:
            lines.append(line)
    _close_section(lines, section, left, said)
    if left:
        raise ConfigError(f"deploy.toml has no {next(iter(left))!r}; {nearest(next(iter(left)), _sections())}")
    return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    """``value`` (a plain one, a sequence or a table) on one line of TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which JSON may leave bare
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(key))} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value)


def _default() -> str:
    return (resources.files("dlx_deploy.config") / "deploy.toml").read_text(encoding="utf-8")


def _sections() -> list[str]:
    return _SECTION.findall(_default())


def _close_section(lines: list[str], section: str, left: dict[str, object], reasons: Mapping[str, str]) -> None:
    """Put what of ``left`` is in ``section``, and was not shown in it, at its end: before the blank line there."""
    blank = [lines.pop()] if lines and not lines[-1] else []
    for name in [name for name in left if name.rpartition(".")[0] == section and section]:
        lines += [*_comment(reasons.get(name)), f"{name.rpartition('.')[2]} = {toml_value(left.pop(name))}"]
    lines += blank


def _changed(found: re.Match[str], value: object) -> str:
    """A line with another ``value``, its comment where it stood if there is room."""
    text = f"{found['key']} = {toml_value(value)}"
    if found["comment"] is None:
        return text
    return f"{text.ljust(found.start('comment') - _LEAST_GAP)} {found['comment']}"


def _comment(reason: str | None) -> list[str]:
    return [f"# {' '.join(reason.split())}"] if reason else []


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)
