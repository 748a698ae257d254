"""Boards as people look at them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.devices.inventory import Board, Inventory, resolved
from dlx_deploy.devices.looking import PackageThere, Seen
from dlx_deploy.report.table import format_bytes, format_table
from dlx_deploy.runtime.errors import BackendMissing, RuntimeFault
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line

__all__ = ["BoardsView", "SeenView", "view_boards"]

MIB = 1 << 20
SHORT = 12
"""Characters of a digest that people compare."""


class BoardsView(msgspec.Struct, frozen=True):
    """The boards that were asked for; ``origin``: the file that names them."""

    origin: str
    boards: tuple[Board, ...]

    @property
    def data(self) -> BoardsView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A table."""
        rows = [
            [b.name, b.address, b.target or "-", b.power_mode or "-", ", ".join(b.groups) or "-", b.note]
            for b in self.boards
        ]
        return format_table(["board", "address", "target", "power mode", "groups", "note"], rows)


class SeenView(msgspec.Struct, frozen=True):
    """Boards as they answered."""

    boards: tuple[Seen, ...]

    @property
    def data(self) -> JsonTable:
        """All of it, plain."""
        values: JsonTable = msgspec.to_builtins(self)
        return values

    @property
    def text(self) -> str:
        """A table of what boards are, and one of what is on them."""
        header = ["board", "what it is", "arch", "runtimes", "power mode", "free disk", "free memory", "measured by"]
        lines = [format_table(header, [_row(seen) for seen in self.boards], right=(5, 6))]
        packages = [_package(seen, one) for seen in self.boards for one in seen.packages]
        if packages:
            lines += ["", format_table(["board", "folder", "current", "pushed", "releases", "held by"], packages)]
        return "\n".join([*lines, *(line(seen.why) for seen in self.boards if seen.why)])

    @property
    def failure(self) -> RuntimeFault | None:
        """That of the first board that did not answer."""
        lost = [seen for seen in self.boards if seen.why]
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        return BackendMissing(f"{lost[0].why}{more}") if lost else None


def _row(seen: Seen) -> list[str]:
    facts = seen.facts
    if facts is None:
        return [seen.board.name, "no answer", *["-"] * 6]
    wanted = seen.board.power_mode
    mode = facts.power_mode_name or "-"
    return [
        seen.board.name,
        facts.board or facts.cpu_model or facts.os,
        facts.arch,
        ", ".join(f"{name} {version}" for name, version in seen.runtimes.items()),
        f"{mode}, not {wanted}" if wanted and mode != wanted else mode,
        format_bytes(facts.free_disk_mib * MIB),
        format_bytes(facts.free_memory_mib * MIB) if facts.free_memory_mib is not None else "-",
        seen.measuring or "-",
    ]


def _package(seen: Seen, package: PackageThere) -> list[str]:
    now, held = package.current, package.held
    return [
        seen.board.name,
        package.root,
        f"{now.name} {now.version} ({now.digest[:SHORT]})" if now else "-",
        f"{now.pushed_at} by {now.pushed_by}" if now and now.pushed_by else "-",
        str(package.releases),
        f"{held.who}: {held.purpose}, since {held.since}" if held else "-",
    ]


def view_boards(names: Sequence[str], known: Inventory) -> BoardsView:
    """The boards that ``names`` mean (none: all that are ``known``).

    Raises:
        ConfigError: a name is unknown.
    """
    return BoardsView(known.origin, resolved(names, known) if names else tuple(known.boards.values()))
