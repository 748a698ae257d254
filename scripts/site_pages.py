"""Pages of the site that are made of the product itself, so that they cannot be out of date: an mkdocs hook.

``reference/configuration.md``: every key of ``deploy.toml``. ``reference/commands.md``: every command and option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["commands_page", "configuration_page", "on_files"]

_LINE = re.compile(r"^(?P<key>[a-z_0-9]+) = (?P<value>.*?)\s*(?:#\s*(?P<text>.*))?$")
_TABLE = re.compile(r"^\[(?P<name>[a-z.]+)\]\s*(?:#\s*(?P<text>.*))?$")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those of ``docs/``."""
    from mkdocs.structure.files import File

    for name, text in (("configuration", configuration_page()), ("commands", commands_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


@dataclass
class Key:
    """A key as the commented file has it."""

    name: str
    value: str
    text: str


@dataclass
class Table:
    """A table of the commented file; the first has no name."""

    name: str
    text: str
    keys: list[Key] = field(default_factory=list)


def configuration_page() -> str:
    """Every key with its default, what it may be and what it means, from the commented file and the structs."""
    parts = [
        "# Configuration",
        "`dlx-deploy init` writes all of this as a commented `deploy.toml` that builds as it stands. Unknown keys, "
        "wrong types and impossible values are refused by name. `--set SECTION.KEY=VALUE` overrides one key for a run. "
        "Relative paths are relative to the file.",
    ]
    for table in tables():
        parts.append(f"## [{table.name}]" if table.name else "## At the top")
        parts += [_sentence(table.text)] if table.text else []
        kinds = allowed(table.name)
        rows = [f"| `{k.name}` | `{k.value}` | {kinds.get(k.name, '')} | {_cell(k.text)} |" for k in table.keys]
        parts += ["\n".join(["| key | default | may be | meaning |", "|---|---|---|---|", *rows])] if rows else []
    return "\n\n".join(parts) + "\n"


def tables() -> list[Table]:
    """The tables of the commented file."""
    from dlx_deploy.config.template import render

    found = [Table("", "")]
    for line in render().splitlines():
        table, key = _TABLE.match(line), _LINE.match(line)
        if table:
            found.append(Table(table["name"], table["text"] or ""))
        elif key:
            found[-1].keys.append(Key(key["key"], key["value"], key["text"] or ""))
        elif line.startswith(" ") and line.strip().startswith("#") and found[-1].keys:
            last = found[-1].keys[-1]
            goes_on = last.text.endswith((";", ",", "…", " and", " or"))
            last.text += (" " if goes_on else "; ") + line.strip().removeprefix("#").strip()
    return found


def allowed(section: str) -> dict[str, str]:
    """Key → what it may be, for people, from the struct of the section."""
    import msgspec

    from dlx_deploy.config import Config

    fields = {f.name: f.type for f in msgspec.inspect.type_info(Config).fields}  # type: ignore[union-attr]
    if section:
        owner = fields.get(section)
        fields = {f.name: f.type for f in owner.fields} if hasattr(owner, "fields") else {}
    return {name: describe(kind) for name, kind in fields.items()}


def describe(kind: Any) -> str:
    """A type of msgspec's in words."""
    name = type(kind).__name__
    if name == "LiteralType":
        return ", ".join(f"`{_toml(v)}`" for v in kind.values)
    if name == "UnionType":
        return " or ".join(describe(k) for k in kind.types)
    if name in ("VarTupleType", "ListType"):
        return f"list of {describe(kind.item_type)}"
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = {sign: getattr(kind, key, None) for key, sign in signs.items()}
    bounds = [f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None and abs(limit) < 2**60]
    word = {"IntType": "integer", "FloatType": "number", "StrType": "string", "BoolType": "`true`, `false`"}.get(name)
    return " ".join([word or "table", ", ".join(bounds)]).strip()


def commands_page() -> str:
    """Every command with its arguments and options, from the command line itself."""
    import typer

    from dlx_deploy.cli import app

    root = typer.main.get_command(app)
    parts = ["# Commands", "Results are on stdout (`--json` on most), talk and progress on stderr.", str(root.epilog)]
    for words, command in _commands(root, ("dlx-deploy",)):
        arguments = " ".join(_metavar(p) for p in command.params if _is_argument(p))
        parts.append(f"## {' '.join(words[1:])}")
        parts.append(_sentence((command.help or "").split("\n\n")[0].replace("\n", " ")))
        parts.append(f"    {' '.join(words)} {arguments}".rstrip() + " [OPTIONS]")
        rows = [_row(p) for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        parts += ["\n".join(["| | meaning | default |", "|---|---|---|", *rows])] if rows else []
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        elif not command.hidden:
            yield (*words, name), command


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[]")
    return name if argument.required else f"[{name}]"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _row(parameter: Any) -> str:
    name = _metavar(parameter) if _is_argument(parameter) else ", ".join(parameter.opts)
    default = "" if parameter.default in (None, False, ()) or _is_argument(parameter) else f"`{parameter.default}`"
    return f"| `{name}` | {_cell(parameter.help or '')} | {default} |"


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").strip()


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", ":", "…")) else ".")
