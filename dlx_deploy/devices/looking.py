"""What boards are at this moment, and what there is on them: asked of several at once, and nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dlx_deploy.devices.asking import Agent, BoardFacts
from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.many import on_each
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError

__all__ = ["Held", "PackageThere", "Release", "Seen", "look_at"]

FOLDER = "dlx-deploy"
"""Below the home of the user there: where packages go that nobody named a folder for."""


class Release(msgspec.Struct, frozen=True):
    """A release as its record has it; empty: it does not say."""

    digest: str
    name: str = ""
    version: str = ""
    target: str = ""
    pushed_by: str = ""
    pushed_at: str = ""


class Held(msgspec.Struct, frozen=True):
    """Who holds a lock, for what, and since when."""

    who: str = ""
    purpose: str = ""
    since: str = ""


class PackageThere(msgspec.Struct, frozen=True):
    """A package's folder: its ``current`` release, if there is one, how many there are, who works on it."""

    root: str
    releases: int
    current: Release | None = None
    held: Held | None = None


class _Overview(msgspec.Struct, frozen=True):
    packages: tuple[PackageThere, ...]
    measuring: str | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A board as it answered; ``why``: it did not, with the ``exit_code`` of that. ``measuring``: who measures on it,
    in words; empty: nobody."""

    board: Board
    facts: BoardFacts | None = None
    packages: tuple[PackageThere, ...] = ()
    measuring: str = ""
    why: str = ""
    exit_code: int = 0

    @property
    def runtimes(self) -> Mapping[str, str]:
        """What runs packages there, by distribution."""
        named = ("python", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
        return {name: self.facts.versions[name] for name in named if self.facts and name in self.facts.versions}


def look_at(boards: Sequence[Board], at_once: int = 16) -> tuple[Seen, ...]:
    """What each board says, in their order."""
    return on_each(
        boards,
        _seen,
        lambda board, error: Seen(board=board, why=str(error), exit_code=error.exit_code),
        at_once,
    )


def _seen(board: Board, connection: Connection) -> Seen:
    agent = Agent(connection, parse_address(board.address).path or FOLDER)
    facts = agent.facts()
    told = agent.ask("overview")
    try:
        there = msgspec.convert(told, _Overview)
    except msgspec.ValidationError as e:
        raise BoardError(f"{connection.name}: what is on it cannot be read ({e}); look at {facts.root} there") from e
    return Seen(board=board, facts=facts, packages=there.packages, measuring=there.measuring or "")
