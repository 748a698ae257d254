"""Boards by name and in groups: ``boards.toml``, and who is meant where a board is asked for.

The file is ``--boards FILE``, what ``DLX_DEPLOY_BOARDS`` names, or ``boards.toml`` in the working folder. Wherever an
address ``ssh://…`` is taken, the name of a board or of a group is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from dlx_deploy.config.strict import Table, decode, nearest, read_toml
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.schemas import newer_schema
from dlx_deploy.runtime.words import line, shortened
from dlx_deploy.targets import load_target

__all__ = [
    "DEFAULT",
    "SCHEMA",
    "SCHEME",
    "Board",
    "Inventory",
    "example_inventory",
    "load_inventory",
    "resolve_boards",
    "resolved",
]

SCHEMA = 1
DEFAULT = Path("boards.toml")
"""The inventory that is read where none is named."""
SCHEME = "ssh://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_EXAMPLE = "boards.toml"
_REMEDY = "write one with: dlx-deploy boards --example > boards.toml"

Text = Annotated[str, Meta(min_length=1, max_length=500)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table ``[boards.NAME]``; empty: not said."""

    ssh: Text
    path: str = ""
    target: str = ""
    groups: tuple[Name, ...] = ()
    power_mode: str = ""
    note: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    boards: dict[str, Table] = msgspec.field(default_factory=dict)
    groups: dict[str, tuple[Name, ...]] = msgspec.field(default_factory=dict)
    schema: int = SCHEMA


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board as it was named. ``address``: ``ssh://[USER@]HOST[:PORT][/PATH]``; empty: nobody said.

    ``target``: the name or path of the profile that its packages are for. ``power_mode``: the mode in which it is
    measured. ``groups``: those that it is in by the inventory, directly or not.
    """

    name: str
    address: str
    target: str = ""
    groups: tuple[str, ...] = ()
    power_mode: str = ""
    note: str = ""


class Inventory(msgspec.Struct, frozen=True):
    """The boards and groups of one file. ``origin``: that file; empty: there is none.

    ``groups``: name → names of boards, each once, in the order in which they are named.
    """

    origin: str = ""
    boards: Mapping[str, Board] = msgspec.field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    def named(self, name: str) -> tuple[Board, ...]:
        """The board ``name``, or those of the group.

        Raises:
            ConfigError: there is neither.
        """
        if name in self.boards:
            return (self.boards[name],)
        if name in self.groups:
            return tuple(self.boards[member] for member in self.groups[name])
        known = [*self.boards, *self.groups]
        if not self.origin:
            raise ConfigError(
                f"board {name!r}: no {DEFAULT} here that could say who that is; give an address, "
                f"as in {SCHEME}user@{line(name) if _NAME.fullmatch(name) else 'board'}, or {_REMEDY}"
            )
        raise ConfigError(f"board {name!r}: {self.origin} has no such board or group; {nearest(name, known)}")


def load_inventory(path: Path | None = None) -> Inventory:
    """The boards of the file ``path`` (``None``: ``boards.toml`` in the working folder, or none).

    Raises:
        ConfigError: it is missing, no TOML, or not consistent.
    """
    if path is None and not DEFAULT.exists():
        return Inventory()
    place = path or DEFAULT
    origin = str(place)
    raw = read_toml(place, origin, _REMEDY)
    if newer := newer_schema(raw.get("schema", SCHEMA), SCHEMA):
        raise ConfigError(f"{origin}: {newer}")
    file = decode(raw, _File, origin)
    if file.schema != SCHEMA:
        raise ConfigError(f"{origin}: schema is {file.schema}; rule: {SCHEMA}, or leave it out")
    entries = {name: decode(table, _Entry, f"{origin}: boards.{name}") for name, table in file.boards.items()}
    _check_names(entries, file.groups, origin)
    groups = _groups(entries, file.groups, origin)
    boards = {name: _board(name, entry, groups, place) for name, entry in entries.items()}
    _refuse_twice(boards.values(), origin)
    return Inventory(origin, boards, groups)


def resolve_boards(names: Sequence[str], inventory: Path | None = None) -> tuple[Board, ...]:
    """The boards that ``names`` mean, each once: addresses, and boards and groups of the inventory.

    Raises:
        ConfigError: a name is unknown, a group is empty, an address or the inventory cannot be used.
    """
    return resolved(names, load_inventory(inventory))


def resolved(names: Sequence[str], known: Inventory) -> tuple[Board, ...]:
    """As ``resolve_boards``, by an inventory that was read. An address that it has is the board that it has there.

    Raises:
        ConfigError: a name is unknown, a group is empty, an address cannot be used.
    """
    by_address = {board.address: board for board in known.boards.values()}
    found: dict[str, Board] = {}
    for name in names:
        for board in _meant(name, known, by_address):
            found.setdefault(board.address, board)
    return tuple(found.values())


def example_inventory() -> str:
    """A commented ``boards.toml``."""
    return (resources.files("dlx_deploy.devices") / _EXAMPLE).read_text(encoding="utf-8")


def _is_address(name: str) -> bool:
    return "://" in name


def _meant(name: str, known: Inventory, by_address: Mapping[str, Board]) -> tuple[Board, ...]:
    if not _is_address(name) and "@" not in name:  # which no board's name has, and an address may
        boards = known.named(name)
        if not boards:
            raise ConfigError(f"group {name!r} of {known.origin} has no boards; name it in the groups of one")
        return boards
    address = str(parse_address(name))
    return (by_address.get(address, Board(name=name, address=address)),)


def _check_names(entries: Mapping[str, _Entry], groups: Mapping[str, object], origin: str) -> None:
    for kind, names in (("boards", entries), ("groups", groups)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{origin}: {kind}.{shortened(name)} is no name; rule: letters, digits, '.', '_' and '-', "
                    "a letter or digit first, at most 80"
                )
    named = {*groups, *(group for entry in entries.values() for group in entry.groups)}
    for name in entries:
        if name in named:
            raise ConfigError(f"{origin}: {name!r} is a board and a group; rule: one name, one meaning; rename one")


def _groups(
    entries: Mapping[str, _Entry], groups: Mapping[str, Sequence[str]], origin: str
) -> dict[str, tuple[str, ...]]:
    """Each group's boards: those that it lists, of groups in it, and those that name it, in the file's order."""
    listed = {name: list(members) for name, members in groups.items()}
    for name, entry in entries.items():
        for group in entry.groups:
            listed.setdefault(group, []).append(name)
    known = [*entries, *listed]
    for group, members in listed.items():
        for member in members:
            if member not in known:
                near = nearest(member, known)
                raise ConfigError(f"{origin}: groups.{group} names {member!r}, which is nothing; {near}")
    found: dict[str, tuple[str, ...]] = {}
    for group in listed:
        _expand(group, listed, (), found, origin)
    return {group: found[group] for group in listed}


def _expand(
    name: str,
    listed: Mapping[str, Sequence[str]],
    seen: tuple[str, ...],
    found: dict[str, tuple[str, ...]],
    origin: str,
) -> tuple[str, ...]:
    """The boards that ``name`` means; those of groups are kept in ``found``, so that each is looked at once."""
    if name in seen:
        raise ConfigError(
            f"{origin}: groups go in a circle ({' -> '.join((*seen, name))}); take one of them out of another"
        )
    if name not in listed:
        return (name,)
    if name not in found:
        boards = (_expand(member, listed, (*seen, name), found, origin) for member in listed[name])
        found[name] = tuple(dict.fromkeys(board for some in boards for board in some))
    return found[name]


def _board(name: str, entry: _Entry, groups: Mapping[str, Sequence[str]], place: Path) -> Board:
    """``entry`` as who asks for ``name`` gets it."""
    where = f"{place}: boards.{name}"
    target = entry.target
    if target.endswith(".toml"):
        target = str(place.parent / target)
    if target:
        try:
            load_target(target)
        except ConfigError as e:
            raise ConfigError(f"{where}.target: {e}") from e
    return Board(
        name=name,
        address=_address(entry, where),
        target=target,
        groups=tuple(group for group, members in groups.items() if name in members),
        power_mode=entry.power_mode,
        note=entry.note,
    )


def _address(entry: _Entry, where: str) -> str:
    """As ``Address`` writes it, so that one place has one spelling."""
    text = entry.ssh if _is_address(entry.ssh) else SCHEME + entry.ssh
    try:
        address = parse_address(text)
        if entry.path and address.path:
            raise ConfigError(f"ssh is {entry.ssh!r} and path is {entry.path!r}; say the path once")
        return str(parse_address(f"{text.rstrip('/')}/{_below(entry.path)}") if entry.path else address)
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e


def _below(path: str) -> str:
    """``path`` as an address has it behind the host: from the root, or below the home (``~/x``, ``x``)."""
    return path[1:] if path.startswith("/") else path if path.startswith("~/") else f"~/{path}"


def _refuse_twice(boards: Iterable[Board], origin: str) -> None:
    seen: dict[str, str] = {}
    for board in boards:
        other = seen.setdefault(board.address, board.name)
        if other != board.name:
            raise ConfigError(
                f"{origin}: {other} and {board.name} are both {board.address}; rule: one name for each place on a "
                "board; use groups for more names, or give one of them another path"
            )
