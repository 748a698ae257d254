"""What came of a push, on each board: findings with their remedies, what was asked there, which release is current."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.pushing.checks import Step
from dlx_deploy.devices.pushing.preflight import Finding
from dlx_deploy.devices.pushing.push import Pushed
from dlx_deploy.devices.pushing.several import RolledBack
from dlx_deploy.errors import BoardLost, DlxError
from dlx_deploy.report.table import format_bytes, format_ms, format_seconds, format_table
from dlx_deploy.runtime.errors import (
    BackendMissing,
    BudgetMissed,
    EngineError,
    PackageError,
    RuntimeFault,
    SelfTestFailed,
    Undecided,
)
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.views import lines_of

__all__ = ["PushesView", "RollbackView", "RollbacksView", "view_rollbacks"]

SHORT = 12
"""Characters of a digest that people compare."""
FAULTS: tuple[type[RuntimeFault], ...] = (
    *(PackageError, BudgetMissed, BackendMissing, SelfTestFailed, Undecided, EngineError),
)
WORST = (5, 3, 7, 6, 4, 2)
"""Exit codes, those first that say most of the package."""


class PushesView(msgspec.Struct, frozen=True):
    """A package and what came of it on each board."""

    name: str
    version: str
    target: str
    boards: tuple[Pushed, ...]

    @property
    def data(self) -> JsonTable:
        """All of it, plain."""
        values: JsonTable = msgspec.to_builtins(self)
        return values

    @property
    def text(self) -> str:
        """A paragraph for each board; of several, a table of them all above."""
        head = f"{self.name} {self.version} for {self.target}"
        table = [*_table(self.boards).splitlines(), ""] if len(self.boards) > 1 else []
        return lines_of([head, *table, *(line for board in self.boards for line in _paragraph(board))])

    @property
    def failure(self) -> RuntimeFault | None:
        """The error that the worst of the boards amounts to."""
        failed = [board for board in self.boards if board.exit_code]
        if not failed:
            return None
        worst = min(failed, key=lambda board: _rank(board.exit_code))
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        board = "" if worst.board in worst.why else f"{worst.board}: "  # which the error itself may name
        return _fault(worst.exit_code)(f"{board}{worst.why}{_stays(worst)}{more}")


class RollbackView(msgspec.Struct, frozen=True):
    """Which release was current on a board, and which is now, records as the board keeps them; or ``why`` nothing was
    changed, with the exit code of that. ``unknown``: the board was not heard to the end. ``service_why``: the release
    is back, and its service does not run it."""

    board: str
    root: str
    left: JsonTable | None = None
    current: JsonTable | None = None
    why: str = ""
    exit_code: int = 0
    unknown: bool = False
    service_why: str = ""

    @property
    def data(self) -> JsonTable:
        """Both records."""
        values: JsonTable = {"board": self.board, "root": self.root}
        if self.why:
            return {**values, "why": self.why, "exit_code": self.exit_code}
        down = {"service_why": self.service_why, "exit_code": self.exit_code} if self.service_why else {}
        return {**values, "from": self.left, "to": self.current, **down}

    @property
    def text(self) -> str:
        """From which to which."""
        if self.left is None or self.current is None:
            stays = "may stay as it is" if self.unknown else "stays as it is"
            return lines_of([f"{self.board}: {self.root} {stays}: {self.why}"])
        back = f"{self.board}: {self.root} is back at {_release(self.current)}, from {_release(self.left)}"
        return lines_of([back, *([f"  service  {self.service_why}"] if self.service_why else [])])

    @property
    def failure(self) -> RuntimeFault | None:
        """Why nothing was changed, or what followed the change did not."""
        if not self.why and not self.service_why:
            return None
        why = self.why or f"it is back, and its service {self.service_why}; do not go back again for that"
        return _fault(self.exit_code)(f"{self.board}: {why}")


class RollbacksView(msgspec.Struct, frozen=True):
    """A rollback on several boards."""

    boards: tuple[RollbackView, ...]

    @property
    def data(self) -> JsonTable:
        """Each board's."""
        return {"boards": [board.data for board in self.boards]}

    @property
    def text(self) -> str:
        """A line for each board."""
        return lines_of([board.text for board in self.boards])

    @property
    def failure(self) -> RuntimeFault | None:
        """The first that there is."""
        return next((board.failure for board in self.boards if board.failure), None)


def view_rollbacks(found: Sequence[RolledBack]) -> RollbackView | RollbacksView:
    """One board's view, or several."""
    views = tuple(
        _view_failure(board, root, told) if isinstance(told, DlxError) else _view_rollback(board, root, told)
        for board, root, told in found
    )
    return views[0] if len(views) == 1 else RollbacksView(views)


def _view_failure(board: Board, root: str, error: DlxError) -> RollbackView:
    why, unknown = _without(str(error), board), isinstance(error, BoardLost)
    return RollbackView(board.name, root, why=why, exit_code=error.exit_code, unknown=unknown)


def _view_rollback(board: Board, root: str, told: JsonTable) -> RollbackView:
    why, code = told.get("service_why", ""), told.get("exit_code", 0)
    return RollbackView(board.name, root, told["from"], told["to"], service_why=why, exit_code=code)


def _without(text: str, board: Board) -> str:
    return text.removeprefix(f"{board.name}: ")


def _fault(exit_code: int) -> type[RuntimeFault]:
    return next((one for one in FAULTS if one.exit_code == exit_code), BackendMissing)


def _table(boards: tuple[Pushed, ...]) -> str:
    rows = [
        [
            board.board,
            board.outcome,
            board.current[:SHORT] if board.current else "-",
            next((_p90(step) for step in board.steps if _p90(step)), "-"),
            format_seconds(board.seconds) if board.seconds else "-",
            board.why,
        ]
        for board in boards
    ]
    return format_table(["board", "outcome", "current", "p90", "took", "why"], rows, right=(3, 4))


def _rank(exit_code: int) -> int:
    return WORST.index(exit_code) if exit_code in WORST else len(WORST)


def _stays(board: Pushed) -> str:
    if board.outcome != "failed":
        return ""
    if board.current is None:
        return "; no release is current there"
    if board.current == board.digest:
        return "; it is current there, as it was: push --rollback goes back to the one before"
    return f"; current there stays {board.current[:SHORT]}"


def _paragraph(board: Pushed) -> list[str]:
    lines = [f"{board.board}:{board.root}: {board.outcome}"]
    lines += [f"  {one.level:<8} {one.describe()}" for one in _sorted(board.findings)]
    if board.brought:
        word = "would bring" if board.outcome in ("would be current", "unfit") else "brought "
        lines.append(f"  {word} {board.brought}")
    left = board.size_bytes - board.bytes_there
    there = f", {format_bytes(board.bytes_there)} were there" if board.bytes_there else ""
    if board.outcome == "would be current":
        release = f"releases/{board.digest[:SHORT]}…"
        lines.append(f"  would send {format_bytes(left)}{there}, install {release}, run {', '.join(board.commands)}")
        unit = ["  and would write this unit:", *(f"    {text}" for text in board.service.splitlines())]
        lines += ["  and make it current; nothing was changed", *(unit if board.service else [])]
    elif board.steps:
        lines.append(f"  sent     {format_bytes(left)}{there}")
        lines += [f"  {step.name:<8} {_told(step)}" for step in board.steps]
    if board.outcome == "current":
        before = f", before it {board.before[:SHORT]}" if board.before else ""
        removed = f"; {len(board.removed)} older removed" if board.removed else ""
        lines.append(f"  current  {board.digest[:SHORT]}{before}{removed}; {format_seconds(board.seconds)} in all")
        lines += [f"  service  {board.service}"] if board.service else []
    return lines


def _sorted(findings: tuple[Finding, ...]) -> list[Finding]:
    order = ("refused", "warning", "told", "ok")
    return sorted(findings, key=lambda one: order.index(one.level))


def _told(step: Step) -> str:
    if step.exit_code:
        return f"failed with exit code {step.exit_code}: {step.said}"
    p90 = _p90(step)
    return f"passed in {format_seconds(step.seconds)}{f', p90 {p90}' if p90 else ''}"


def _p90(step: Step) -> str:
    """What a bench measured; empty of other steps."""
    latency = step.answer.get("latency")
    p90 = latency.get("p90_ms") if isinstance(latency, dict) else None
    return format_ms(p90) if isinstance(p90, float) else ""


def _release(record: JsonTable) -> str:
    return f"{record.get('name')} {record.get('version')} ({str(record.get('digest'))[:SHORT]})"
