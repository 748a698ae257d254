"""The ``deploy.toml`` of a trial: the user's own file, comments and all, with what differs set in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlx_deploy.config import Config
from dlx_deploy.config.loading import plain_values, read_config
from dlx_deploy.config.strict import Table
from dlx_deploy.config.template import render

__all__ = ["chosen_text"]


def chosen_text(source: Path | None, wanted: Config, folder: Path, reason: str) -> str:
    """The text of a file in ``folder`` that means ``wanted``, made from the one at ``source`` (``None``: the built-in
    one); ``reason``: a comment at its top."""
    import tomlkit

    document = tomlkit.parse(render() if source is None else source.read_text(encoding="utf-8").replace("\r\n", "\n"))
    values = _plain(plain_values(wanted, lambda path: path if os.path.isabs(path) else os.path.relpath(path, folder)))
    for keys in _differences(_meant(document.as_string(), folder), _absolute(wanted), ()):
        _set(document, values, keys)
    text = document.as_string()
    if _meant(text, folder) != _absolute(wanted):  # a form of TOML in which keys cannot be set one by one
        text = tomlkit.dumps(values)
        assert _meant(text, folder) == _absolute(wanted)
    return "".join(f"# {line}\n" for line in reason.splitlines()) + text


def _meant(text: str, folder: Path) -> Table:
    return _absolute(read_config(text, folder))


def _absolute(config: Config) -> Table:
    """All keys, with every path in the one form in which equal ones are equal."""
    return {key: _plain(value) for key, value in plain_values(config, os.path.abspath).items()}


def _plain(value: Any) -> Any:
    """``value`` with lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _differences(have: object, want: object, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys at which a value has to be set."""
    if isinstance(have, dict) and isinstance(want, dict) and have.keys() <= want.keys():
        for key in want:
            yield from _differences(have.get(key), want[key], (*keys, key))
    elif have != want:
        yield keys


def _set(document: Any, values: Table, keys: tuple[str, ...]) -> None:
    import tomlkit

    place: Any = document
    value: Any = values
    for depth, key in enumerate(keys[:-1]):
        if key not in place:
            place[key] = tomlkit.table() if depth == 0 else tomlkit.inline_table()
        place, value = place[key], value[key]
    place[keys[-1]] = value[keys[-1]]
