"""What the commands that run a package take that says how its model is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.commands.given import taking
from dlx_deploy.commands.options import AcceptHazardsOption, BackendOption, NoBuildOption, ThreadsOption
from dlx_deploy.commands.passing import given_flags

if TYPE_CHECKING:
    from dlx_deploy.runtime.backends.table import BackendOptions

__all__ = ["Opening", "taking_opening"]


@dataclass(frozen=True)
class Opening:
    """The options themselves, in the order of ``--help``."""

    threads: ThreadsOption = 0
    backend: BackendOption = None
    no_build: NoBuildOption = False
    accept_hazards: AcceptHazardsOption = False

    def options(self, cache: Path | None = None) -> BackendOptions:
        """The same as the runtime takes it; ``cache``: where engines are kept, if not where they usually are."""
        from dlx_deploy.runtime.backends.table import BackendOptions

        kept = None if cache is None else str(cache)
        return BackendOptions(self.backend, self.threads, not self.no_build, kept, self.accept_hazards)

    def flags(self) -> list[str]:
        """The same, as a package's own command line takes them."""
        flags = [*["--no-build"] * self.no_build, *["--accept-hazards"] * self.accept_hazards]
        return [f"--threads={self.threads}", *given_flags({"backend": self.backend}), *flags]


def taking_opening(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is an ``Opening``, as a function of its fields."""
    return taking(Opening, command, last=True)
