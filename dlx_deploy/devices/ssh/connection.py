"""A connection to a board, as whoever uses one sees it: commands, Python sources and files go over, answers come back.

Nothing is assumed of the board but a POSIX shell and, for all but ``run``, a Python 3. Relative paths there begin at
the home of the user. ``openssh.SshConnection`` is the one there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from dlx_deploy.progress import Progress
from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["Answered", "Connection"]


class Answered(msgspec.Struct, frozen=True):
    """How a command ended there, and what it said."""

    exit_code: int
    stdout: bytes
    stderr: str


class Connection(Protocol):
    """A login at a board; all but ``close`` raise ``BoardUnreachable`` where there is none, ``BoardLost`` where it
    breaks off."""

    @property
    def name(self) -> str:
        """How messages call the board."""
        ...

    def run(
        self, argv: Sequence[str], *, stdin: bytes | Path | None = None, timeout_s: float | None = None
    ) -> Answered:
        """How ``argv`` ended there. ``timeout_s``: how long it may be silent; ``None``: as long as the board answers.

        Raises:
            BoardError: it was silent for longer, or a signal ended it.
        """
        ...

    def python(
        self,
        source: str,
        argument: object,
        *,
        timeout_s: float = ...,
        heard: Callable[[str], None] = ...,
        interpreter: str = ...,
    ) -> JsonTable:
        """What ``main(argument)`` of ``source`` gives there, a table: plain values both ways.

        ``heard``: told each line that it says on standard error, as it comes. Its standard input stays open until it
        answers, so that a long one can see us go. ``interpreter``: another Python there than the connection's.

        Raises:
            BoardUnfit: there is no Python 3.
            BoardError: it raised, or was silent for ``timeout_s`` seconds.
        """
        ...

    def send(self, path: Path, remote: str, digest: str, progress: Progress = ...) -> None:
        """Have the bytes of ``path``, whose SHA-256 is ``digest``, at ``remote`` there. What an earlier, broken-off
        ``send`` of the same bytes brought is not sent again; a file that is there already is not sent at all.

        Raises:
            BoardError: no room, no right to write, another copy under way, other bytes arrived.
        """
        ...

    def fetch(self, remote: str, path: Path) -> None:
        """Write the bytes of ``remote`` there, at most 64 MiB, to ``path`` here, whole or not at all.

        Raises:
            BoardError: it cannot be read, or is larger.
        """
        ...

    def close(self) -> None:
        """End the login; the next use logs in again."""
        ...
