"""JSON for people who read it as well: how every view is printed by ``--json``."""

from __future__ import annotations

import msgspec

__all__ = ["to_json"]


def to_json(value: object) -> str:
    """``value`` as JSON, sorted and indented."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted", enc_hook=str), indent=1).decode()
