"""The agent on a board, asked from here: its answers as values, its refusals as errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from dlx_deploy.devices.agent.sending import agent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError, BoardRefused
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line, shortened

__all__ = ["Agent", "BoardFacts", "Partial", "Releases", "Seen"]

PATIENCE_S = 600.0
"""A digest of a large package on a slow card takes minutes."""


class BoardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a board says of itself; ``None`` and empty: it does not.

    ``root``: the folder of the package there, absolute. ``executable``: the Python that runs packages, ``versions``: of
    it and what it has, by distribution; ``pythons``: others, by their minor version. ``l4t``: of a Jetson's system.
    ``clock_ahead_s``: its clock less ours. ``boot``: another one after each start.
    """

    root: str
    writable: bool
    free_disk_mib: int
    free_memory_mib: int | None
    total_memory_mib: int | None
    arch: str
    system: str
    os: str
    glibc: str
    cpu_model: str
    cores: int
    board: str
    gpus: tuple[str, ...]
    l4t: str
    power_mode: str | None
    power_mode_name: str | None
    governor: str | None
    clock_mhz: float | None
    executable: str
    pythons: Mapping[str, str]
    versions: Mapping[str, str]
    clock_ahead_s: float
    boot: str


class Partial(msgspec.Struct, frozen=True):
    """What there is of a package on a board: whether a release of it, and whether all of its bytes (``come``), how many
    are there, and where they go (``incoming``)."""

    installed: bool
    come: bool
    bytes: int
    incoming: str


class Releases(msgspec.Struct, frozen=True):
    """The releases on a board, as their records are, the newest first; the digests of that which is ``current`` and of
    that ``before`` it; who works there, ``removed`` by the last command."""

    releases: tuple[JsonTable, ...]
    current: str | None
    before: str | None
    lock: JsonTable | None = None
    removed: tuple[str, ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """What a board says before a push begins."""

    facts: BoardFacts
    partial: Partial
    releases: Releases


Read = TypeVar("Read")


class Agent:
    """The agent at ``path`` of the board behind ``connection``; ``path`` may begin at the user's home there."""

    def __init__(self, connection: Connection, path: str) -> None:
        self.connection, self.path = connection, path

    def ask(self, command: str, **fields: object) -> JsonTable:
        """The answer to ``command``.

        Raises:
            BoardRefused: the board does not do it; why is in the message, its kind beside it.
            BoardError: it cannot be asked, or answers nonsense.
        """
        question = {"command": command, "path": self.path, **fields}
        said = self.connection.python(agent_source(), question, timeout_s=PATIENCE_S)
        fault, answer = said.get("fault"), said.get("ok")
        if isinstance(fault, dict):
            raise BoardRefused(f"{self.connection.name}: {line(str(fault.get('text')))}", str(fault.get("kind")), fault)
        if not isinstance(answer, dict):
            raise BoardError(f"{self.connection.name}: answers {shortened(said)} to {command}; push again")
        return answer

    def facts(self, python: str | None = None) -> BoardFacts:
        """What the board is now; ``python``: what is to run packages there (``None``: its choice).

        Raises:
            BoardError: as ``ask``, or a field is missing or of the wrong kind.
        """
        return self.read(self.ask("facts", clock_s=time.time(), python=python), BoardFacts)

    def look(self, digest: str, python: str | None = None) -> Seen:
        """What the board is now, what of the package ``digest`` is there, and its releases; errors as of ``facts``."""
        return self.read(self.ask("look", digest=digest, clock_s=time.time(), python=python), Seen)

    def read(self, answer: object, kind: type[Read]) -> Read:
        """An answer as a value of ``kind``.

        Raises:
            BoardError: a field is missing, or of the wrong kind.
        """
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as e:
            raise BoardError(f"{self.connection.name}: its answer cannot be read ({e})") from e
