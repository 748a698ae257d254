"""What a release shows on its board before it becomes current: its engine, its self-test, its budgets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import msgspec

from dlx_deploy.devices.measuring import Manners, measuring
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.devices.verifying import Verification, signer_there
from dlx_deploy.errors import BoardError, BoardLost
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.package.bundle import SUFFIX
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line

__all__ = ["SIGNATURE", "Step", "Talk", "There", "commands_of", "run_steps", "verify_there"]

SIGNATURE = "signature"
"""The step before all others, where one is asked for."""
NOTED = 'echo $$ > "$1" && shift && exec "$@"'
"""The process that works says its number to the lock, and then becomes the package's."""
TIMED = ("bench",)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command of the package there: its exit code, what it answered as JSON, and its last words if it failed."""

    name: str
    exit_code: int
    seconds: float
    answer: JsonTable
    said: str = ""


class There(msgspec.Struct, frozen=True):
    """A release and how its commands are run: ``python`` and ``package`` there, the lock's file, more flags."""

    python: str
    package: str
    lock: str
    flags: tuple[str, ...] = ()


class Talk(msgspec.Struct, frozen=True):
    """Who hears of a push: each step as a line, and how far it is."""

    say: Callable[[str], None]
    progress: Progress = silent


def commands_of(package: Package, engine: bool, bench: bool) -> tuple[str, ...]:
    """What is asked of a release: an ``engine`` is built first; ``bench``: budgets of the board are judged."""
    budgets = bool(package.latency_budgets) or package.device_budgets.is_set
    return (*["engine"] * engine, "selftest", *["bench"] * (bench and budgets))


def verify_there(connection: Connection, python: str, package: str, how: Verification) -> Step:
    """What ``python`` on the board finds of the signature beside ``package`` there.

    Raises:
        BoardError: as ``signer_there``.
    """
    began = time.monotonic()
    found = signer_there(connection, package, f"{package}{SUFFIX}", how, python)
    seconds = time.monotonic() - began
    if found.fault is not None:
        code, words = found.fault.exit_code, line(found.fault.said)
        return Step(name=SIGNATURE, exit_code=code, seconds=seconds, answer={}, said=words)
    answer: JsonTable = {"verdict": "pass", "by": line(str(found.by))}
    return Step(name=SIGNATURE, exit_code=0, seconds=seconds, answer=answer)


def run_steps(
    connection: Connection,
    there: There,
    commands: Sequence[str],
    manners: Manners,
    talk: Talk,
    renew: Callable[[], object] = lambda: None,
) -> tuple[Step, ...]:
    """The steps, up to the first that does not pass; while one times, nobody else does on that board.

    ``renew``: keeps the lock of the releases while one waits for who measures: nothing of ours runs there then.

    Raises:
        BoardLost: the connection broke off.
        BoardError: another one measures there, and ``manners`` neither wait for long enough nor steal.
    """
    done: list[Step] = []
    for number, command in enumerate(commands):
        talk.say(f"{connection.name}: {command} …")
        talk.progress(number, len(commands), command)
        purpose = f"{command} of a push"
        with measuring(connection, purpose, manners, talk.say, renew) if command in TIMED else nullcontext():
            done.append(_step(connection, there, command))
        if done[-1].exit_code:
            break
    return tuple(done)


def _step(connection: Connection, there: There, command: str) -> Step:
    argv = ["sh", "-c", NOTED, "sh", there.lock, there.python, there.package, command, "--json", *there.flags]
    began = time.monotonic()
    try:
        said = connection.run(argv)
    except BoardLost:
        raise
    except BoardError as e:  # a runtime that dies of a signal
        return Step(name=command, exit_code=e.exit_code, seconds=time.monotonic() - began, answer={}, said=str(e))
    words = [text for text in said.stderr.splitlines() if text.strip()][-1:]
    return Step(
        name=command,
        exit_code=said.exit_code,
        seconds=time.monotonic() - began,
        answer=_answer(said.stdout),
        said=line(words[0]).removeprefix("error: ") if said.exit_code and words else "",
    )


def _answer(stdout: bytes) -> JsonTable:
    """The table that was printed, whatever a login shell printed before it; empty where there is none."""
    begin = re.search(rb"^\{$", stdout, re.MULTILINE)
    if not begin:
        return {}
    try:
        answer: JsonTable = msgspec.json.decode(stdout[begin.start() :], type=dict)
    except msgspec.DecodeError:
        return {}
    return answer
