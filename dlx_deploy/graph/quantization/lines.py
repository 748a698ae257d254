"""JSON with a line for each entry of its tables: machines write it, people read, compare and edit it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["json_lines"]

Entry = msgspec.Struct | Mapping[str, tuple[float, float]]


def json_lines(head: Mapping[str, str | int], tables: Mapping[str, Mapping[str, Entry]]) -> bytes:
    """``head`` and then ``tables``, names sorted; equal values give equal bytes."""
    parts = [f"  {_json(key)}: {_json(value)}" for key, value in head.items()]
    for title, entries in tables.items():
        inside = ",\n".join(f"    {_json(name)}: {_line(entries[name])}" for name in sorted(entries))
        parts.append(f"  {_json(title)}: {{\n{inside}\n  }}" if entries else f"  {_json(title)}: {{}}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _line(entry: Entry) -> str:
    """Compact, but for a space behind the comma between fields."""
    fields = msgspec.to_builtins(entry)
    return "{" + ", ".join(f"{_json(key)}: {_json(value)}" for key, value in fields.items()) + "}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
