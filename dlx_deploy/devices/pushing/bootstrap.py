"""Libraries brought to a board that lacks them: chosen and fetched here, unpacked there, tried, and only then used."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.devices.asking import Agent, BoardFacts
from dlx_deploy.devices.pushing.wheels import Interpreter, Wheel, fetch_wheels, platform_tags, requirements
from dlx_deploy.errors import BoardUnfit
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.words import line

__all__ = ["Bootstrap", "Brought", "Wheelhouse", "bring", "needed_by", "use"]

MODULES = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "cuda-python": "cuda",
    "pillow": "PIL",
    "tokenizers": "tokenizers",
    "cryptography": "cryptography.x509",
    "pyopenssl": "OpenSSL.crypto",
}
"""Distribution → what is imported of it, to see that it runs on this board's processor and C library."""
READERS = {"image/*": "pillow", "text/plain": "tokenizers"}
"""The Content-Type of a sample → the distribution that reads such."""
TRY_S = 600.0
MIB = 1 << 20


class Bootstrap(msgspec.Struct, frozen=True):
    """``wanted``: as pip is asked for it; none: nothing lacks. ``wheels``: all that it needs, in a folder of ours."""

    wanted: tuple[str, ...]
    wheels: tuple[Wheel, ...] = ()

    @property
    def versions(self) -> Mapping[str, str]:
        """Distribution → version of what is brought."""
        parts = (wheel.path.name.split("-") for wheel in self.wheels)
        return {re.sub(r"[-_.]+", "-", part[0]).lower(): part[1] for part in parts}

    def describe(self) -> str:
        """What is brought, on a line."""
        size = sum(wheel.path.stat().st_size for wheel in self.wheels) / MIB
        names = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{names} ({size:.1f} MiB)"


class Brought(msgspec.Struct, frozen=True):
    """An environment there, by its ``id``, with ``python``: packages run in it once it is used. ``versions``: of what
    came, by distribution; ``bytes_sent``: of it."""

    id: str
    python: str
    versions: Mapping[str, str]
    bytes_sent: int


class Wheelhouse:
    """A folder here in which boards of a kind find what they lack; each kind is fetched once, whoever asks first."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self._folder, self._source, self._lock = folder, source, threading.Lock()
        self._found: dict[tuple[tuple[str, ...], Interpreter], tuple[Wheel, ...]] = {}

    def choose(self, board: str, facts: BoardFacts, needed: Sequence[str]) -> Bootstrap:
        """What ``board`` lacks, fetched. ``needed``: distributions beside numpy; a runtime or a verifier among them has
        to come.

        Raises:
            BoardUnfit: no wheels are made for such a board, or none are found. EnvironmentMissing, ConfigError: as
                ``fetch_wheels``.
        """
        wanted = requirements(tuple(facts.versions), needed)
        if not wanted:
            return Bootstrap(())
        interpreter = Interpreter(facts.versions.get("python", ""), facts.arch, facts.glibc)
        tags, kind = platform_tags(interpreter, board), (wanted, interpreter)
        with self._lock:
            if kind not in self._found:
                folder = self._folder / str(len(self._found))
                self._found[kind] = fetch_wheels(wanted, tags, interpreter, folder, self._source)
            return Bootstrap(wanted, self._found[kind])


def needed_by(package: Package) -> tuple[str, ...]:
    """The distributions that a package needs beside numpy and a runtime: what reads a user's files."""
    library = READERS.get(getattr(package.task.inputs, "media", ""), "")
    return (library,) if library else ()


def bring(agent: Agent, token: str, chosen: Bootstrap, progress: Progress = silent) -> Brought:
    """The environment of ``chosen`` there, beside that which packages run in; ``token``: of the lock that is held.

    What was sent by an earlier one that broke off is not sent again. Nothing outside the package's folder is changed.

    Raises:
        BoardError: the board has no room, or the connection breaks off.
        BoardUnfit: a library that is brought does not run there.
    """
    by_digest = {wheel.digest: wheel for wheel in chosen.wheels}
    made = agent.ask("environment", token=token, wheels=sorted(by_digest))
    sent, total = 0, sum(by_digest[digest].path.stat().st_size for digest in made["lacks"])
    for digest, remote in made["lacks"].items():
        path = by_digest[digest].path
        agent.connection.send(path, str(remote), digest, _from(sent, total, progress))
        sent += path.stat().st_size
    if made["lacks"]:
        made = agent.ask("environment", token=token, wheels=sorted(by_digest))
    _try(agent, str(made["python"]), [name for name in chosen.versions if name in MODULES])
    return Brought(str(made["id"]), str(made["python"]), chosen.versions, sent)


def use(agent: Agent, token: str, brought: Brought) -> str:
    """The Python that packages run in from now on, which has what was ``brought``.

    Raises:
        BoardError: the connection breaks off, or the environment is gone.
    """
    return str(agent.ask("use-environment", token=token, id=brought.id)["python"])


def _from(before: int, total: int, progress: Progress) -> Callable[..., None]:
    """Tells of one file as a part of all."""
    return lambda done, size, text="": progress(before + done, total, text)


def _try(agent: Agent, python: str, names: Sequence[str]) -> None:
    """See that the libraries can be imported there: a processor may lack what a wheel was built for."""
    modules = [MODULES[name] for name in names]
    if not modules:
        return
    done = agent.connection.run([python, "-c", f"import {', '.join(modules)}"], timeout_s=TRY_S)
    if done.exit_code != 0:
        words = [text for text in done.stderr.splitlines() if text.strip()][-1:]
        raise BoardUnfit(
            f"{agent.connection.name}: {', '.join(names)} came whole and cannot be imported there "
            f"({line(words[0]) if words else f'exit code {done.exit_code}'}); nothing is used of them; look for wheels "
            "that are made for this board, and give them with --wheels DIR"
        )
