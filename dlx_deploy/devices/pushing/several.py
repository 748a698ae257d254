"""A package pushed to several boards side by side, or rolled back on them: a result for each, whatever others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.many import on_each
from dlx_deploy.devices.pushing.backends import lacking_runtimes
from dlx_deploy.devices.pushing.bootstrap import Brought, Wheelhouse, bring, needed_by, use
from dlx_deploy.devices.pushing.locking import locked
from dlx_deploy.devices.pushing.push import Pushable, Pushed, PushOptions, default_path, push, roll_back, unreached
from dlx_deploy.devices.pushing.serving import Caretaker, Serving
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.devices.ssh.openssh import SshConnection
from dlx_deploy.devices.verifying import lacking_verifiers
from dlx_deploy.errors import BoardRefused, BoardUnfit, DlxError
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["Beside", "RolledBack", "Watching", "push_all", "roll_back_all"]

SERVICE_DOWN = 5
"""The exit code where a release passed its checks and does not stay up as a service: that of a self-test."""

RolledBack = tuple[Board, str, "JsonTable | DlxError"]
"""A board, the folder there, and what was and is current (``from``, ``to``), or why nothing was changed.

``service_why`` and ``exit_code`` where the release is back and its service does not run it."""


class Watching(Protocol):
    """Who is told how it goes; by several threads."""

    def say(self, text: str) -> None:
        """Hear of a step or a warning."""
        ...

    def row(self, board: Board) -> AbstractContextManager[Progress]:
        """Inside, the board is at work, and how far it is is told."""
        ...

    def ended(self, pushed: Pushed) -> None:
        """Hear what came of one."""
        ...


class Beside(msgspec.Struct, frozen=True):
    """``house``: from where libraries are brought that a board lacks; ``serving``: which service is wished there."""

    house: Wheelhouse | None = None
    serving: Serving = Serving()


NOTHING = Beside()


def push_all(
    given: Pushable,
    boards: Sequence[Board],
    options: PushOptions,
    watching: Watching,
    at_once: int,
    beside: Beside = NOTHING,
) -> tuple[Pushed, ...]:
    """What came of pushing to each of ``boards``, in their order; results bear the names that boards were given.

    ``beside``: what is done there beside the push.

    Raises:
        ConfigError: the package's name is no folder's, and a board has no path.
    """
    own = {board.address: _options(given, board, options) for board in boards}

    def work(board: Board, connection: SshConnection) -> Pushed:
        with watching.row(board) as progress:
            pushed = _Work(given, connection, own[board.address], watching.say, progress).serve(beside)
        return told(replace(pushed, board=_name(board, connection)))

    def failed(board: Board, error: DlxError) -> Pushed:
        pushed = unreached(board.name, given, own[board.address], error)
        return told(replace(pushed, outcome="unfit") if isinstance(error, BoardUnfit) else pushed)

    def told(pushed: Pushed) -> Pushed:
        watching.ended(pushed)
        return pushed

    return on_each(boards, work, failed, at_once)


def _words(error: DlxError, agent: Agent) -> str:
    return str(error).removeprefix(f"{agent.connection.name}: ")


def _is_not(error: DlxError) -> str:
    """A board that was not heard to the end may have done it."""
    return "is not" if isinstance(error, BoardRefused) else "may not be"


def _service_code(error: DlxError) -> int:
    down = isinstance(error, BoardRefused) and error.kind == "service-down"
    return SERVICE_DOWN if down else error.exit_code


class _Work(msgspec.Struct, frozen=True):
    """A push to one board."""

    given: Pushable
    connection: SshConnection
    options: PushOptions
    say: Callable[[str], None]
    progress: Progress

    def serve(self, beside: Beside) -> Pushed:
        """What came of it; a package that is current is served by the board's service, if it has one."""
        agent = Agent(self.connection, self.options.path)
        caretaker = Caretaker(agent, self.given.package, beside.serving, self.options.manners, self.say)
        caretaker.check()
        pushed, brought = (self.push(), None) if beside.house is None else self.push_with(beside.house)
        python = pushed.facts.executable if pushed.facts else ""
        if pushed.outcome == "would be current":
            return replace(pushed, service=caretaker.text(python))
        if pushed.outcome != "current":
            return pushed
        what = "what it was checked with"
        try:
            if brought is not None:
                with locked(agent, "uses libraries", self.options.manners, self.say) as held:
                    python = use(agent, held.token, brought)
            what = "its service"
            return replace(pushed, service=caretaker.settle(python))
        except DlxError as e:  # the release is current, whatever else is so
            used = "" if what == "its service" else " used there; push again"
            why = f"it is current, and {what} {_is_not(e)}{used}: {_words(e, agent)}"
            return replace(pushed, why=why, exit_code=_service_code(e))

    def push(self, **changes: Any) -> Pushed:
        """What came of it."""
        return push(self.given, self.connection, replace(self.options, **changes), self.say, self.progress)

    def push_with(self, house: Wheelhouse) -> tuple[Pushed, Brought | None]:
        """The same; what the board's own Python lacks is brought first, if all else fits, and tried with the package.

        Nothing that is current runs on it meanwhile: that is for who sees that the package became current.
        """
        name, package = self.connection.name, self.given.package
        if self.options.python:
            self.connection.interpreter = self.options.python
        agent = Agent(self.connection, self.options.path)
        facts = agent.facts(self.connection.interpreter)
        runtimes = lacking_runtimes(package, facts, self.options.accept_hazards) or ()
        verifiers = lacking_verifiers(self.given.verification, facts)
        chosen = house.choose(name, facts, (*runtimes, *needed_by(package), *verifiers))
        if not chosen.wanted:
            return self.push(), None
        words = chosen.describe()
        trial = self.push(dry_run=True, brought=chosen.versions)
        if self.options.dry_run or trial.outcome == "unfit":
            return replace(trial, brought=words), None
        self.say(f"{name}: brings {words}")
        with locked(agent, "brings libraries", self.options.manners, self.say) as held:
            brought = bring(agent, held.token, chosen, self.progress)
        return replace(self.push(python=brought.python), brought=words), brought


def roll_back_all(
    given: Pushable, boards: Sequence[Board], options: PushOptions, say: Callable[[str], None], at_once: int
) -> tuple[RolledBack, ...]:
    """What came of going back on each of ``boards``, in their order.

    Raises:
        ConfigError: as ``push_all``.
    """
    own = {board.address: _options(given, board, options) for board in boards}

    def work(board: Board, connection: SshConnection) -> RolledBack:
        there = own[board.address]
        told = roll_back(connection, there, say, given.verification)
        agent = Agent(connection, there.path)
        try:
            Caretaker(agent, given.package, Serving(), there.manners, say).restart()
        except DlxError as e:  # it is back all the same: who goes back again would go back two
            told = {**told, "service_why": f"{_is_not(e)}: {_words(e, agent)}", "exit_code": _service_code(e)}
        return board, there.path, told

    return on_each(boards, work, lambda board, error: (board, own[board.address].path, error), at_once)


def _options(given: Pushable, board: Board, options: PushOptions) -> PushOptions:
    """``options`` as the inventory has them for ``board``."""
    manners = replace(options.manners, power_mode=board.power_mode)
    path = parse_address(board.address).path or default_path(given.package)
    return replace(options, path=path, target=board.target, manners=manners)


def _name(board: Board, connection: Connection) -> str:
    """The board's name; of one that has none but its address, that without the folder."""
    return connection.name if board.name == board.address else board.name
