"""Every error that dlx-deploy raises on purpose, and the exit code it ends with.

    DlxError
    ├── ConfigError            2   a configuration file, option, name or checkpoint that cannot be used
    │   └── DataError          2   images, labels or folders that cannot be used
    ├── EnvironmentMissing     4   an extra, a device or a library that is not here
    ├── BoardError             4   a board that does not do what it is asked
    │   ├── BoardUnreachable   4   it cannot be logged in at: network, host key, user
    │   ├── BoardLost          4   the connection broke off in the middle
    │   ├── BoardUnfit         4   it lacks what the work needs: Python, a runtime, room
    │   └── BoardRefused       4   the agent there does not do it: a lock that another holds, a folder, no release
    ├── StageFailed            5   a stage could not do its work (NaN loss, a full disk, …)
    │   └── StoreError         5   the store cannot be read or written
    └── GateStopped            -   a gate's verdict stopped the build
        ├── GateFailed         3   the budget is missed
        └── GateUndecided      6   too few test images to say

The device side has its own tree in ``runtime/errors.py`` (it imports nothing of the build side) with the
same ``exit_code`` attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "BoardError",
    "BoardLost",
    "BoardRefused",
    "BoardUnfit",
    "BoardUnreachable",
    "ConfigError",
    "DataError",
    "DlxError",
    "EnvironmentMissing",
    "GateFailed",
    "GateStopped",
    "GateUndecided",
    "StageFailed",
    "StoreError",
]


class DlxError(Exception):
    """What all our errors have in common: a message for a person and an exit code."""

    exit_code: ClassVar[int] = 1


class ConfigError(DlxError):
    """Raised when what the user wrote cannot be used: what, value seen, rule, remedy."""

    exit_code: ClassVar[int] = 2


class DataError(ConfigError):
    """Raised when a data set cannot be used: missing, corrupt, empty, one class only, too small."""


class EnvironmentMissing(DlxError):
    """Raised when this machine lacks what the work needs: an extra, a device, a library."""

    exit_code: ClassVar[int] = 4


class BoardError(DlxError):
    """Raised when a board that is reached over the network does not do what it is asked."""

    exit_code: ClassVar[int] = 4


class BoardUnreachable(BoardError):
    """Raised when there is no login at a board: no route, no ssh server, another host key, a key it does not take."""


class BoardLost(BoardError):
    """Raised when the connection to a board breaks off in the middle; what arrived there stays."""


class BoardUnfit(BoardError):
    """Raised when a board lacks what the work needs: a Python that is new enough, a runtime, room on its disk."""


class BoardRefused(BoardError):
    """Raised when the agent on a board does not do what it is asked; ``kind`` is its word for why, ``fault`` all."""

    def __init__(self, message: str, kind: str, fault: Mapping[str, object]) -> None:
        super().__init__(message)
        self.kind, self.fault = kind, fault


class StageFailed(DlxError):
    """Raised when a stage could not do its work; nothing of it is stored."""

    exit_code: ClassVar[int] = 5


class StoreError(StageFailed):
    """Raised when the store cannot be read or written: a full disk, a read-only folder."""


class GateStopped(DlxError):
    """Raised after a stage whose gate did not pass; the measurement itself stays in the store."""


class GateFailed(GateStopped):
    """Raised when the candidate misses its budget."""

    exit_code: ClassVar[int] = 3


class GateUndecided(GateStopped):
    """Raised when the test split is too small to decide at the confidence asked for."""

    exit_code: ClassVar[int] = 6
