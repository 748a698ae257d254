"""What somebody asked of a configuration, what was seen, and what was chosen: frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dlx_deploy.progress import Progress, silent

__all__ = ["Choices", "Machine", "Wish"]


@dataclass(frozen=True)
class Wish:
    """``file``: where the configuration goes, which paths in it are relative to. Empty: not asked for."""

    data: Path
    file: Path
    kind: str = ""
    task: str = ""
    targets: tuple[str, ...] = ()
    minutes: float = 30.0
    model: str = ""
    checkpoint: Path | None = None
    say: Callable[[str], None] = lambda _: None
    progress: Progress = silent


class Machine(msgspec.Struct, frozen=True):
    """What trains: ``cores`` that this process may use, and a GPU's name, if there is one."""

    cpu: str
    cores: int
    gpu: str

    @property
    def text(self) -> str:
        """It in words."""
        return self.gpu or f"{self.cores} cores of {self.cpu}, no GPU"


@dataclass(frozen=True)
class Choices:
    """``values``: ``section.key`` → what it is instead of its default. ``reasons``: why, for some of them.

    ``notes``: what to know that no key says.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __or__(self, other: Choices) -> Choices:
        return Choices({**self.values, **other.values}, {**self.reasons, **other.reasons}, (*self.notes, *other.notes))
