"""From the text of ``deploy.toml`` and ``--set`` to a configuration.

Decoding is strict: an unknown key, a wrong type or an impossible value is a ``ConfigError`` that names the path,
the value seen, the rule and, for a misspelt key, the nearest valid one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import to_builtins
from msgspec.structs import replace

from dlx_deploy.config.compression import Prune, Qat
from dlx_deploy.config.data import LAYOUTS
from dlx_deploy.config.sections import Config
from dlx_deploy.config.strict import Table, decode, parse_text, parse_toml, read_toml
from dlx_deploy.config.training import GRAPHS, Distill, Teacher, Training, TrainingDefaults
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.words import shortened

__all__ = ["load_config", "plain_values", "read_config", "written_values"]

HEIRS: dict[str, type[Training]] = {"teacher": Teacher, "distill": Distill, "prune": Prune, "qat": Qat}
"""The sections that inherit from ``[training]``."""


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``path`` (``None``: the built-in default) with ``KEY.PATH=VALUE`` overrides applied.

    Relative paths in the file are relative to the file's folder, those in overrides to the working directory.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is not valid.
    """
    raw: Table = {}
    origin = "built-in configuration"
    if path is not None:
        origin = str(path)
        raw = read_toml(path, origin, "write one with: dlx-deploy init")
        _check(raw, origin)
        raw = _anchored(raw, path.parent)
    for override in overrides:
        raw = _override(raw, override)
        origin = f"--set {override}"
        _check(raw, origin)
    return _whole(raw, origin)


def read_config(text: str, folder: Path) -> Config:
    """The configuration that a file with this ``text`` would be in ``folder``.

    Raises:
        ConfigError: as ``load_config``.
    """
    origin = "the configuration"
    raw = parse_text(text, origin)
    _check(raw, origin)
    return _whole(_anchored(raw, folder), origin)


def plain_values(config: Config, move: Callable[[str], str]) -> Table:
    """Every key of ``config`` as plain values, with what ``move`` makes of every path."""
    return _moved(to_builtins(config), Path(), move)


def _whole(raw: Table, origin: str) -> Config:
    return _with_use(decode(_inherited(_finished(_own_arguments(raw))), Config, origin))


def _with_use(config: Config) -> Config:
    """``config``, whose images are for evaluation alone where no network is trained and nobody said otherwise."""
    if config.trains or config.data.use != "auto" or config.data.kind not in LAYOUTS:
        return config
    return replace(config, data=replace(config.data, use="evaluation"))


def _check(raw: Table, origin: str) -> None:
    """Nothing, if ``raw`` is valid as it was written; a key that ``[training]`` cannot have is said to have its place.

    Raises:
        ConfigError: it is not valid.
    """
    table = raw.get("training", {})
    for key in table if isinstance(table, dict) else ():
        homes = [name for name, kind in HEIRS.items() if key in kind.__struct_fields__]
        if homes and key not in TrainingDefaults.__struct_fields__:
            places = " and ".join(f"{section}.{key}" for section in homes)
            raise ConfigError(
                f"{origin}: training.{key} is {shortened(table[key])}; rule: [training] has only what "
                f"{', '.join(HEIRS)} all inherit, and this is their own: set {places}"
            )
    decode(raw, Config, origin)


def _inherited(raw: Table) -> Table:
    """``raw`` where each section that trains has what ``[training]`` says, unless it says so itself.

    What neither says has the section's own default.
    """
    shared = raw.get("training", {})
    sections = {section: {**shared, **raw.get(section, {})} for section in HEIRS}
    return _with_teachers({**raw, **sections}, lambda table: {**shared, **table})


def _with_teachers(raw: Table, change: Callable[[Table], Table]) -> Table:
    """``raw`` with what ``change`` makes of each table in ``distill.teachers``, which are as ``[teacher]``."""
    tables = raw.get("distill", {}).get("teachers", ())
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return raw
    return _assign(raw, ["distill", "teachers"], [change(table) for table in tables]) if tables else raw


def _own_arguments(raw: Table) -> Table:
    """``raw`` where a model that is named without arguments has none: the default ones are the default model's."""
    for section in ("teacher", "distill"):
        table = raw.get(section, {})
        if "model" in table and "arguments" not in table:
            raw = _assign(raw, [section, "arguments"], {})
    return _with_teachers(raw, lambda table: {"arguments": {}, **table} if "model" in table else table)


def _finished(raw: Table) -> Table:
    """``raw`` where a teacher that is a finished graph is neither trained nor taught from, unless it says so."""
    if not str(raw.get("teacher", {}).get("model", "")).lower().endswith(GRAPHS):
        return raw
    for section, key, value in (("teacher", "epochs", 0), ("distill", "enabled", False), ("prune", "enabled", False)):
        if key not in raw.get(section, {}):
            raw = _assign(raw, [section, key], value)
    return raw


def _override(raw: Table, text: str) -> Table:
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(f"--set {text!r} is not KEY=VALUE; for instance: --set distill.epochs=5")
    return _assign(raw, parts, parse_toml(value))


def _assign(raw: object, parts: Sequence[str], value: object) -> Table:
    table = dict(raw) if isinstance(raw, dict) else {}
    head, *rest = parts
    table[head] = _assign(table.get(head, {}), rest, value) if rest else value
    return table


_PATHS = {"model": ".py:", "tokenizer": ".json", "metric": ".py:"}
"""What a value holds that is a path, where a name would be valid too."""
_KEYS = (
    ("data", "path"),
    ("data", "root"),
    ("data", "classes"),
    ("data", "tokenizer"),
    ("teacher", "checkpoint"),
    ("teacher", "model"),
    ("distill", "checkpoint"),
    ("distill", "model"),
    ("quantize", "plan"),
    ("gate", "baseline"),
    ("gate", "metric"),
)
"""The keys that may hold paths, beside ``targets``."""


def written_values(overrides: Sequence[str], folder: Path) -> dict[str, object]:
    """What ``overrides`` say, by ``section.key``, with paths as a file in ``folder`` must write them."""
    raw: Table = {}
    for override in overrides:
        raw = _override(raw, override)
    raw = _moved(raw, Path(), lambda path: path if os.path.isabs(path) else os.path.relpath(path, folder))
    values: dict[str, object] = {}
    for name, value in raw.items():
        values |= {f"{name}.{key}": held for key, held in value.items()} if isinstance(value, dict) else {name: value}
    return values


def _anchored(raw: Table, folder: Path) -> Table:
    """``raw`` with every path in it made relative to where the file lies."""
    return _moved(raw, folder, lambda path: str(folder / path))


def _moved(raw: Table, folder: Path, move: Callable[[str], str]) -> Table:
    """``raw`` with what ``move`` makes of every path in it, which are relative to ``folder``."""

    def as_teacher(table: Table) -> Table:
        inner = _moved({"teacher": table}, folder, move)["teacher"]
        return inner if isinstance(inner, dict) else table

    raw = _with_teachers(raw, as_teacher)
    for section, key in _KEYS:
        value = raw.get(section, {}).get(key, "")
        is_path = bool(value) and (_PATHS.get(key, "") in value or (key == "model" and value.lower().endswith(GRAPHS)))
        if is_path:
            raw = _assign(raw, [section, key], move(value))
    for section in ("teacher", "distill"):
        value = raw.get(section, {}).get("model", "")
        if value.startswith("hf:") and (folder / value[3:]).is_dir():
            raw = _assign(raw, [section, "model"], f"hf:{move(value[3:])}")
    if "targets" in raw:
        raw = {**raw, "targets": [move(t) if t.endswith(".toml") else t for t in raw["targets"]]}
    return raw
