"""A board that is reached over a connection, as a device: nothing is on it but Python, numpy and a runtime."""

from __future__ import annotations

import contextlib
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.devices.agent.sending import agent_source
from dlx_deploy.devices.answers import measured_of, printed_of, progress_of, read_as
from dlx_deploy.devices.device import Facts
from dlx_deploy.devices.faults import fault_of
from dlx_deploy.devices.kept import KEPT, RUNTIME, Kept
from dlx_deploy.devices.machine import Machine, ask_machine, check_same
from dlx_deploy.devices.measuring import ALONE, Manners, measuring, who_asks
from dlx_deploy.devices.sent import sent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.devices.verifying import Verification, signer_there
from dlx_deploy.errors import BoardError, StageFailed
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.runtime.views import Outcome
from dlx_deploy.runtime.words import line
from dlx_deploy.targets import Host, read_host

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Samples
    from dlx_deploy.runtime.power.meter import Reading
    from dlx_deploy.runtime.timing.sampling import Measured, Sampling
    from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["RemoteBoard"]

SILENCE_S = 1800.0
"""An engine's builder says nothing for minutes; all else tells now and then how far it is."""
ANSWERED = (0, 3, 6)
TIMED = ("bench", "verify", "latencies", "energy")
NEWEST_PART = f"{RUNTIME}/tasks/slice_verdicts.py"
"""A package without it carries a runtime that takes no columns of a list among arrays: ours is put beside it."""


def _unheard(text: str) -> None:
    """Nobody listens. A function of this module, so that a worker process can be given the device."""


class RemoteBoard:
    """The board behind ``connection``. ``say`` hears how far files are that go there, and what runs there tells.

    What is timed there is timed while nobody else measures: ``manners`` say what is done if somebody does.
    """

    def __init__(self, connection: Connection, say: Callable[[str], None] = _unheard, manners: Manners = ALONE) -> None:
        self.connection, self._say, self._manners = connection, say, manners
        self._kept = Kept(connection, say)

    @cached_property
    def _machine(self) -> Machine:
        """What it was when it was first asked: what keys hold of it.

        Raises:
            BoardUnfit: its Python is older than packages need.
        """
        return ask_machine(self.connection)

    @cached_property
    def host(self) -> Host:
        """Its processor, as ``targets.read_host`` says it of this machine."""
        with Scratch("dlx-deploy-work") as folder:
            for name in ("cpuinfo", "model"):
                (folder / name).write_text(self._machine.texts[name], encoding="utf-8")
            return read_host(folder / "cpuinfo", folder / "model", self._machine.machine)

    @property
    def name(self) -> str:
        """Its board or processor; no report says where it is."""
        return f"{line(self.host.board or self.host.cpu_model)} ({self.host.cores} cores, {self.host.arch}, over ssh)"

    @property
    def identity(self) -> Mapping[str, object]:
        """As of this machine, and what else a timing there rests on: the power mode, and versions of what runs it."""
        values: dict[str, object] = msgspec.to_builtins(self.host)
        return {**values, "power_mode": self._machine.power_mode, "versions": dict(self._machine.versions)}

    @property
    def is_here(self) -> bool:
        """It is not."""
        return False

    def facts(self) -> Facts:
        """What the agent says of it."""
        told = self.connection.python(agent_source(), {"command": "facts", "path": KEPT, "clock_s": time.time()})
        if "ok" not in told:
            raise BoardError(f"{self.connection.name}: {line(str(told.get('fault', told)))}")
        return read_as(told["ok"], Facts, self.connection.name, "facts")

    def put(self, path: Path) -> str:
        """A file there by the digest of its bytes; one that is there already is not sent again.

        Raises:
            BoardError: it cannot be written there, see ``Connection.send``; its Python is older than packages need.
        """
        _ = self._machine  # nothing goes to a board that could not run it
        return self._kept.put(path)

    def put_all(self, files: Mapping[str, Path]) -> str:
        """The folder there that has the bytes of ``files``, by their names in it.

        Raises:
            BoardError: as ``put``.
        """
        _ = self._machine
        return self._kept.put_all(files)

    def check_signature(self, package: str, signature: Path, how: Verification) -> str:
        """Who signed the ``package`` there, as it is found there before anything of it is run: ``signature`` and the
        verifier go over.

        Raises:
            RuntimeFault: it is not signed by whom ``how`` trusts. BoardError: as ``put``, or nonsense is answered.
        """
        found = signer_there(self.connection, package, self.put(signature), how)
        if found.fault is not None:
            raise fault_of(msgspec.to_builtins(found.fault), self.connection.name)
        return line(str(found.by))

    def run(self, package: str, command: Sequence[str]) -> Outcome:
        """What the package's own runtime says there; ours, where that is older than what it is asked for."""
        asked = {"package": package, "command": list(command), "apart": False, "runtime": self._runtime_of(package)}
        with self._alone(command[0]):
            answer = self._ask("running", asked)
        if "fault" in answer:
            raise fault_of(answer["fault"], self.connection.name)
        failure = fault_of(answer["failure"], self.connection.name) if answer["failure"] else None
        return Outcome(answer["data"], str(answer["text"]), failure)

    def run_apart(self, package: str, command: Sequence[str]) -> JsonTable:
        """What ``python PACKAGE COMMAND --json`` prints there."""
        from dlx_deploy.runtime.errors import BackendMissing

        words: list[str] = []
        with self._alone(command[0]):
            answer = self._ask("running", {"package": package, "command": list(command), "apart": True}, words)
        if answer["exit_code"] not in ANSWERED:
            said = words[-1] if words else "it says nothing"
            raise BackendMissing(f"{command[0]} on {self.name} ended with exit code {answer['exit_code']}: {said}")
        return printed_of(str(answer["printed"]), self.connection.name, command[0])

    def energy_unknown(self, processor: str) -> str:
        """By the sensors there."""
        asked = {"do": "energy_unknown", "runtime": self._kept.put_runtime(), "processor": processor}
        return str(self._ask("timing", asked)["why"])

    def energy(self, model: Path, sample: Samples, threads: int) -> Reading:
        """As on this machine, by the runtime of this dlx-deploy, which is put there, and the sensors there.

        Raises:
            StageFailed: the model's last run did not give what a run of its own gives there.
        """
        from dlx_deploy.runtime.power.meter import Reading

        answer = self._timed("energy", {model.name: model}, sample, {"threads": threads}, silent)
        return read_as(answer["reading"], Reading, self.connection.name, "energy")

    def latencies(
        self, models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
    ) -> Measured:
        """As on this machine, by the runtime of this dlx-deploy, which is put there.

        Raises:
            StageFailed: a model's last run did not give what a run of its own gives there.
        """
        asked = {key: value for key, value in vars(sampling).items() if key != "settled"}
        answer = self._timed("latencies", models, sample, {"threads": threads, "sampling": asked}, progress)
        return measured_of(answer["measured"], models, self.connection.name)

    def _timed(
        self, what: str, models: Mapping[str, Path], sample: Samples, asked: JsonTable, progress: Progress
    ) -> JsonTable:
        """What the source that times answers; the models and what they are fed are put there first."""
        from dlx_deploy.graph.execution.latency import feed_for
        from dlx_deploy.runtime.tasks.labelled_arrays import save_arrays

        there: dict[str, JsonTable] = {}
        runtime = self._kept.put_runtime()
        with Scratch("dlx-deploy-work") as folder:
            for i, (name, path) in enumerate(models.items()):
                feed = folder / f"{i}.npz"
                save_arrays(feed, feed_for(path, sample))
                there[name] = {"model": self.put(path), "feed": self.put(feed)}
        with self._alone(what):
            answer = self._ask("timing", {"do": what, "runtime": runtime, "models": there, **asked}, progress=progress)
        if "fault" in answer:
            raise StageFailed(str(fault_of(answer["fault"], self.name)))
        if answer["other"]:
            raise StageFailed(f"on {self.name}: {line(answer['other'])}")
        return answer

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Inside, nobody else measures there, if ``what`` is something that is timed, and it stays what keys say it is.

        Raises:
            StageFailed: its power mode or a version is not what it was when it was first asked, before or after.
        """
        if what not in TIMED:
            yield
            return
        with measuring(self.connection, f"{what} of {who_asks()}", self._manners, self._say):
            check_same(self.connection, self._machine, what)
            yield
            check_same(self.connection, self._machine, what)

    def _runtime_of(self, package: str) -> str:
        """Where the runtime lies there that runs ``package``."""
        with zipfile.ZipFile(self._kept.origin(package)) as archive:
            if NEWEST_PART in archive.namelist():
                return package
        self._say("the package's runtime is older than this dlx-deploy, whose own runs it there")
        return self._kept.put_runtime()

    def _ask(
        self, source: str, argument: JsonTable, words: list[str] | None = None, progress: Progress = silent
    ) -> JsonTable:
        """The answer of one of the sources that are sent; ``words`` hears what it says meanwhile, as ``say`` does."""

        def heard(text: str) -> None:
            if far := progress_of(text):
                progress(*far)
                return
            if words is not None:
                words.append(line(text))
            self._say(line(text))

        return self.connection.python(sent_source(source), argument, timeout_s=SILENCE_S, heard=heard)
