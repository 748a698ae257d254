"""Errors of a board's runtime as those of this one, with the same words and exit codes."""

from __future__ import annotations

from dlx_deploy.runtime import errors
from dlx_deploy.runtime.errors import BackendMissing, RuntimeFault, TeacherNeeded
from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["fault_of"]


def fault_of(told: JsonTable, board: str) -> RuntimeFault:
    """What a runtime on ``board`` ended with; an error that is not known here is one of the board."""
    said = f"on {board}: {told['said']}"
    if told["kind"] == TeacherNeeded.__name__:
        needed = TeacherNeeded(f"on {board}: {told['what']}", told["why"], [])
        needed.first = tuple(told["first"])
        return needed
    kind = getattr(errors, str(told["kind"]), None)
    if isinstance(kind, type) and issubclass(kind, RuntimeFault):
        return kind(said)
    return BackendMissing(said)
