"""A package to one board: examined, sent, installed, checked there, and only then current."""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.devices.agent.layout import package_of
from dlx_deploy.devices.asking import Agent, BoardFacts, Partial, Releases
from dlx_deploy.devices.measuring import Manners, who_asks
from dlx_deploy.devices.pushing.backends import expected_runner, runners_of
from dlx_deploy.devices.pushing.checks import SIGNATURE, Step, Talk, There, commands_of, run_steps, verify_there
from dlx_deploy.devices.pushing.locking import Held, locked
from dlx_deploy.devices.pushing.preflight import Finding, Wish, examine
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.devices.verifying import Verification, verification
from dlx_deploy.errors import BoardError, BoardLost, BoardRefused, BoardUnfit, ConfigError, DlxError
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.files import TooLarge, read_file
from dlx_deploy.runtime.package.archive import parse_archive, read_bytes
from dlx_deploy.runtime.package.bundle import MAX_SIGNATURE, SUFFIX
from dlx_deploy.runtime.package.contents import Package, parse_package
from dlx_deploy.runtime.package.trust import Trust, trust_of_machine
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line

__all__ = ["PushOptions", "Pushable", "Pushed", "default_path", "push", "read_pushable", "roll_back", "unreached"]

FOLDER = "dlx-deploy"
"""Below a board's home: where packages go that no path says otherwise of, each in a folder of its name."""
UNFIT = 4
"""The exit code of a board that a package is not for."""
MOST_ANSWER = 100_000
"""Bytes of JSON of a step's answer that a release's record keeps."""
NO_ROOM = f"[Errno {errno.ENOSPC}]"
Say = Callable[[str], None]
Outcome = Literal["current", "would be current", "unfit", "failed", "refused", "not reached"]


class Pushable(msgspec.Struct, frozen=True):
    """A package that was opened here, the SHA-256 of its file, and its signature's bytes, if one lies beside it.

    ``verification``: how that was verified here, if it was asked for, and is again on a board.
    """

    path: Path
    digest: str
    size_bytes: int
    package: Package
    signature: bytes = b""
    verification: Verification | None = None


class PushOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes. ``path``: on the board (empty: below the home, by the package's name). ``keep``: so many releases.

    ``target``: what the board is for by the inventory. ``python``: what runs packages there. ``manners``: what is done
    where another one pushes to it, or measures on it. ``brought``: distributions, with their versions, that the board
    has not yet and will have.
    """

    path: str = ""
    keep: int = 3
    bench: bool = True
    dry_run: bool = False
    target: str = ""
    other_board: bool = False
    accept_hazards: bool = False
    python: str | None = None
    brought: Mapping[str, str] = {}
    manners: Manners = Manners()


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it on one board. ``why``: it is not current; ``exit_code``: of that.

    ``bytes_there``: those that were there before. ``commands``: what is asked of the release there. ``current`` and
    ``before``: digests of releases, as they are now. ``brought``: libraries, in words, that came there for it.
    ``service``: what of its service was done, or the unit that would be written.
    """

    board: str
    root: str
    digest: str
    outcome: Outcome
    size_bytes: int
    bytes_there: int = 0
    facts: BoardFacts | None = None
    findings: tuple[Finding, ...] = ()
    commands: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    why: str = ""
    exit_code: int = 0
    current: str | None = None
    before: str | None = None
    removed: tuple[str, ...] = ()
    brought: str = ""
    service: str = ""
    seconds: float = 0.0


def read_pushable(path: Path, trust: Trust | None) -> Pushable:
    """The package at ``path``, its digests checked, and its signature where ``trust`` asks for one.

    Where it does, the board verifies what came again before anything of it is run, by code and keys of ours: a
    package's own word for its signature would be worth nothing there.

    Raises:
        PackageError, InputError, BackendMissing: as ``open_package``.
        ConfigError: what lies beside it as a signature cannot be read.
    """
    data, trust = read_bytes(path), trust or trust_of_machine()  # read once: what is verified is what is sent
    by = trust.verify(data, path).by if trust is not None else ""
    package = parse_package(parse_archive(data, str(path)), str(path))
    beside = Path(trust.signature) if trust and trust.signature else path.with_name(path.name + SUFFIX)
    try:
        signature = read_file(beside, MAX_SIGNATURE)
    except FileNotFoundError:
        signature = b""
    except (OSError, TooLarge) as e:
        raise ConfigError(f"{beside}: is no signature that can be sent ({e}); move it away, or sign again") from e
    how = verification(trust, by, signature) if trust is not None else None
    return Pushable(path, hashlib.sha256(data).hexdigest(), len(data), package, signature, how)


def default_path(package: Package) -> str:
    """Where on a board the releases of ``package`` are, if nobody says otherwise.

    Raises:
        ConfigError: its name is no name of a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", package.name):
        raise ConfigError(f"{package.name!r} names no folder on a board; give one: ssh://user@board/~/my-folder")
    return f"{FOLDER}/{package.name}"


def push(
    given: Pushable, connection: Connection, options: PushOptions, say: Say, progress: Progress = silent
) -> Pushed:
    """What came of pushing a package to the board behind ``connection``; ``say`` hears of each step.

    Whatever ends it, at any moment, what is current there is current still, and the next push goes on from what came.

    Raises:
        BoardError: the board cannot be reached, breaks off, or does not do it; another one works there.
    """
    began = time.monotonic()
    agent = Agent(connection, options.path or default_path(given.package))
    seen = agent.look(given.digest, options.python)
    facts, there = _with_brought(seen.facts, options.brought), seen.partial.bytes
    runners = runners_of(given.package, facts, options.accept_hazards)
    engine = bool((runner := expected_runner(runners)) and runner.is_engine)
    pushed = Pushed(
        board=connection.name,
        root=facts.root,
        digest=given.digest,
        outcome="would be current",
        facts=facts,
        findings=examine(given.package, facts, _wish(given, there, options)),
        bytes_there=there,
        size_bytes=given.size_bytes,
        commands=commands_of(given.package, engine, options.bench),
        current=seen.releases.current,
        before=seen.releases.before,
    )
    refused = [finding.describe() for finding in pushed.findings if finding.level == "refused"]
    if refused:
        done = msgspec.structs.replace(pushed, outcome="unfit", why="; ".join(refused), exit_code=UNFIT)
    elif options.dry_run:
        done = pushed
    else:
        for finding in pushed.findings:
            if finding.level != "ok":
                say(f"{connection.name}: {finding.level}: {finding.describe()}")
        purpose = f"pushes {given.package.name} {given.package.version}"
        with locked(agent, purpose, options.manners, say, given.digest) as held:
            done = _Release(agent, given, options, held, Talk(say, progress)).push(pushed, facts.executable)
    return msgspec.structs.replace(done, seconds=time.monotonic() - began)


def unreached(board: str, given: Pushable, options: PushOptions, error: DlxError) -> Pushed:
    """What came of a push that ``error`` ended."""
    why, where = str(error), options.path or default_path(given.package)
    outcome: Outcome = "refused" if isinstance(error, BoardRefused) else "not reached"
    pushed = Pushed(board=board, root=where, digest=given.digest, outcome=outcome, size_bytes=given.size_bytes)
    return msgspec.structs.replace(pushed, why=why.removeprefix(f"{board}: "), exit_code=error.exit_code)


def roll_back(connection: Connection, options: PushOptions, say: Say, how: Verification | None = None) -> JsonTable:
    """The records of the release that was current at ``options.path``, ``from``, and of the one that is now, ``to``.

    ``how``: its signature is verified there before, as that of a package that is pushed, by the same Python.

    Raises:
        ConfigError: it is not signed by whom ``how`` names. BoardError: there is none before it, or as ``push``.
    """
    agent = Agent(connection, options.path)
    with locked(agent, "rolls back", options.manners, say) as held:
        verified = _verified_before(agent, how, options.python, say) if how is not None else {}
        try:
            told = agent.ask("rollback", token=held.token, **verified)
        except BoardRefused:
            raise
        except BoardError as e:
            unknown = "whether it went back is not known; push the release that is to be current"
            raise BoardLost(f"{e} ({unknown})") from e
        held.released = True
    return told


def _verified_before(agent: Agent, how: Verification, python: str | None, say: Say) -> JsonTable:
    """The digest of the release that was current before, whose signature holds; none, where there is no release."""
    connection, facts = agent.connection, agent.facts(python)
    before = agent.read(agent.ask("releases"), Releases).before
    if before is None:
        return {}
    say(f"{connection.name}: {SIGNATURE} …")
    step = verify_there(connection, facts.executable, package_of(facts.root, before), how)
    if step.exit_code:
        release = f"the release {line(before[:12])}"
        raise ConfigError(f"{connection.name}: does not go back to {release}: {step.said}; push one that is signed")
    return {"digest": before}


class _Release:
    """One release on its way, while its pusher holds the lock."""

    def __init__(self, agent: Agent, given: Pushable, options: PushOptions, held: Held, talk: Talk) -> None:
        self.agent, self.given, self.options, self.held, self.talk = agent, given, options, held, talk

    def push(self, pushed: Pushed, python: str) -> Pushed:
        """Sent, installed, checked by ``python`` there, and made current if all passes."""
        package = self._install()
        flags = ("--accept-hazards",) if self.options.accept_hazards else ()
        there = There(python, package, f"{pushed.root}/lock.pid", flags)
        steps = self._verified(there)
        if all(step.exit_code == 0 for step in steps):
            manners, connection = self.options.manners, self.agent.connection
            steps += run_steps(connection, there, pushed.commands, manners, self.talk, lambda: self._ask("working"))
        failed = next((step for step in steps if step.exit_code), None)
        why = f"{failed.name} ended with exit code {failed.exit_code}: {failed.said}" if failed else ""
        told = self._finish(steps, why)
        return msgspec.structs.replace(
            pushed,
            steps=steps,
            outcome="failed" if failed else "current",
            why=why,
            exit_code=failed.exit_code if failed else 0,
            current=told.current,
            before=told.before,
            removed=told.removed,
        )

    def _verified(self, there: There) -> tuple[Step, ...]:
        """What is found of its signature there, if one is asked for."""
        how, connection = self.given.verification, self.agent.connection
        if how is None:
            return ()
        self.talk.say(f"{connection.name}: {SIGNATURE} …")
        return (verify_there(connection, there.python, there.package, how),)

    def _finish(self, steps: tuple[Step, ...], why: str) -> Releases:
        """What the checks gave stands in the release's record, and what follows of it is done there."""
        answers = {step.name: {"exit_code": step.exit_code, "answer": _bounded(step.answer)} for step in steps}
        asked = {"state": "failed" if why else "passed", "why": why, "checks": answers, "keep": self.options.keep}
        try:
            told = self.agent.read(self._ask("finish", **asked), Releases)
        except BoardRefused:
            raise
        except BoardError as e:
            unknown = "" if why else " (its checks passed; whether it is current there is not known: push again)"
            raise BoardLost(f"{e}{unknown}") from e
        self.held.released = True
        return told

    def _install(self) -> str:
        """The package's path there, after its bytes are."""
        there = self.agent.read(self.held.answered["partial"], Partial)
        if not there.come:
            self._send(there.incoming)
        package = self.given.package
        facts = {
            "name": package.name,
            "version": package.version,
            "target": package.target,
            "file": self.given.path.name,
            "bytes": self.given.size_bytes,
            "pushed_by": who_asks(),
            "pushed_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),  # ours: the board's clock may be years off
        }
        signature = base64.b64encode(self.given.signature).decode("ascii")
        return str(self._ask("install", facts=facts, signature=signature)["package"])

    def _send(self, remote: str) -> None:
        try:
            self.agent.connection.send(self.given.path, remote, self.given.digest, self.talk.progress)
        except BoardError as e:
            if NO_ROOM not in str(e):
                raise
            root = line(remote.rpartition("/incoming/")[0])
            board = self.agent.connection.name
            text = f"{board}: no room is left on the file system of {root}; make some and push again: what came is kept"
            raise BoardUnfit(text) from e

    def _ask(self, command: str, **fields: object) -> JsonTable:
        return self.agent.ask(command, digest=self.given.digest, token=self.held.token, **fields)


def _bounded(answer: JsonTable) -> JsonTable:
    """What a step answered, if a record has room for it."""
    return answer if len(msgspec.json.encode(answer)) <= MOST_ANSWER else {}


def _with_brought(facts: BoardFacts, brought: Mapping[str, str]) -> BoardFacts:
    return msgspec.structs.replace(facts, versions={**facts.versions, **brought})


def _wish(given: Pushable, there: int, options: PushOptions) -> Wish:
    return Wish(
        bytes_left=given.size_bytes - there,
        target=options.target,
        other_board=options.other_board,
        accept_hazards=options.accept_hazards,
        verification=given.verification,
    )
