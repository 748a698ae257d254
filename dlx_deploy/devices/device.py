"""What a device is to whoever measures: a choice between models, a gate, a benchmark. No heavy library here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from dlx_deploy.progress import Progress, silent

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Samples
    from dlx_deploy.runtime.power.meter import Reading
    from dlx_deploy.runtime.timing.sampling import Measured, Sampling
    from dlx_deploy.runtime.untyped import JsonTable
    from dlx_deploy.runtime.views import CommandView

__all__ = ["Device", "Facts"]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is, as far as it says; ``None`` and empty: it does not.

    ``versions``: those of Python and of what runs packages, by distribution. ``clock_mhz``: of its first core, now.
    Free memory is what a process may still take, free disk what is left where packages go.
    """

    arch: str
    system: str
    cpu_model: str
    cores: int
    board: str
    gpus: tuple[str, ...]
    versions: Mapping[str, str]
    governor: str | None
    power_mode: str | None
    clock_mhz: float | None
    free_memory_mib: int | None
    free_disk_mib: int | None


class Device(Protocol):
    """A machine that runs packages and times models; all of it may be far away.

    A path that ``put`` gave is the device's own and means something to ``run`` alone.
    """

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """What of it a timing rests on and that does not change by itself, as plain values: it enters keys."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether it is this machine: what is computed here is then computed by it."""
        ...

    def facts(self) -> Facts:
        """What it is at this moment."""
        ...

    def put(self, path: Path) -> str:
        """Where the bytes of ``path``, a file of this machine, are on the device from now on.

        Raises:
            DlxError: they cannot be had there.
        """
        ...

    def run(self, package: str, command: Sequence[str]) -> CommandView:
        """What the package at ``package`` says to ``command``, as ``python PACKAGE COMMAND`` would there.

        Raises:
            RuntimeFault, DlxError: the command cannot be done; a gate that does not pass is in the view.
        """
        ...

    def run_apart(self, package: str, command: Sequence[str]) -> JsonTable:
        """What ``python PACKAGE COMMAND --json`` prints there, in a process of its own, whose memory is then what the
        package takes; a gate that does not pass is in it.

        Raises:
            RuntimeFault: the process ended without an answer; its last words are in the message.
        """
        ...

    def energy_unknown(self, processor: str) -> str:
        """Why the energy that ``processor`` takes (``cpu``, ``gpu``) cannot be measured there; empty where it can."""
        ...

    def energy(self, model: Path, sample: Samples, threads: int) -> Reading:
        """What an inference of an ONNX model that lies here takes there beyond idle, run without a pause; or why that
        is unknown. ``sample``: one."""
        ...

    def latencies(
        self, models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
    ) -> Measured:
        """Name → latency at batch 1 of ONNX models that lie here, timed in turn there, so that drift hits all alike.

        ``sample``: one. ``sampling``: how much is timed.
        """
        ...
