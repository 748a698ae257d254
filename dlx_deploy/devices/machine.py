"""What a timing on a board rests on, asked of it: its processor, its power mode, and versions of what runs there."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from dlx_deploy.devices.answers import read_as
from dlx_deploy.devices.sent import sent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError, BoardUnfit, StageFailed
from dlx_deploy.runtime.linux import CPUINFO, DEVICE_TREE_MODEL
from dlx_deploy.runtime.words import line

__all__ = ["Machine", "ask_machine", "check_same"]

OLDEST = (3, 8)
FILES = {"cpuinfo": CPUINFO, "model": DEVICE_TREE_MODEL, "power_mode": "/var/lib/nvpmodel/status"}


class Machine(msgspec.Struct, frozen=True):
    """``texts``: of files that say what it is, empty where there is none; ``versions`` by distribution."""

    texts: Mapping[str, str]
    machine: str
    versions: Mapping[str, str]

    @property
    def power_mode(self) -> str:
        """As a Jetson writes it: ``pmode:0000``; empty elsewhere."""
        return self.texts["power_mode"]


def ask_machine(connection: Connection) -> Machine:
    """What it is at this moment.

    Raises:
        BoardUnfit: its Python is older than packages need.
        BoardError: it cannot be asked, or answers nonsense.
    """
    answer = connection.python(sent_source("machine"), {"files": {k: str(v) for k, v in FILES.items()}})
    seen = read_as(answer, Machine, connection.name, "what it is")
    python = seen.versions.get("python", "")
    version = re.match(r"(\d+)\.(\d+)", python)
    if version is None or not FILES.keys() <= seen.texts.keys():
        raise BoardError(f"{connection.name}: what it says of its Python and its files cannot be read; try again")
    if tuple(map(int, version.groups())) < OLDEST:
        raise BoardUnfit(
            f"{connection.name} has Python {line(python)}; packages need 3.8 or newer: install one there "
            "(python3.8 of its distribution)"
        )
    return seen


def check_same(connection: Connection, before: Machine, what: str) -> None:
    """Refuses to have ``what`` timed on a board that is not what keys say it is.

    Raises:
        StageFailed: the power mode or a version is not what it was.
    """
    now = ask_machine(connection)
    pairs = [("power mode", before.power_mode, now.power_mode)]
    for name in sorted({*before.versions, *now.versions}):
        pairs.append((name, before.versions.get(name, ""), now.versions.get(name, "")))
    if changed := [f"{line(name)} was {_said(was)}, is {_said(it)}" for name, was, it in pairs if was != it]:
        raise StageFailed(
            f"{connection.name} is not what it was when this began: {'; '.join(changed)}; a timing would be kept as "
            f"one of what it was, so nothing of {what} is: run it again, and leave the board so meanwhile"
        )


def _said(value: str) -> str:
    return line(value) or "none"
