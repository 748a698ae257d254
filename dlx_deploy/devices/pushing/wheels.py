"""Wheels for a board that has no way to a package index: chosen and fetched here, by this machine's pip."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dlx_deploy.devices.agent.files import digest_of
from dlx_deploy.errors import BoardUnfit, ConfigError, EnvironmentMissing
from dlx_deploy.runtime.supported import ONNXRUNTIME, PYTHON
from dlx_deploy.runtime.words import line, shortened

__all__ = ["OLDEST_GLIBC", "Interpreter", "Wheel", "fetch_wheels", "platform_tags", "requirements"]

NUMPY = "numpy>=1.24"
OLDEST_GLIBC = 17
"""The minor version of glibc 2 from which on there are wheels of what packages need (manylinux2014)."""
ARCHITECTURES = ("aarch64", "x86_64")
FETCH_S = 1800
_LEGACY = {17: "manylinux2014"}
_VERSIONS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime>={}.{},<{}.{}".format(*ONNXRUNTIME[0], ONNXRUNTIME[1][0], ONNXRUNTIME[1][1] + 1),),
    "cuda-python": ("cuda-python>=12",),
    "cryptography": ("cryptography>=3.4",),
    "pyopenssl": ("pyopenssl>=20.0", "typing-extensions"),  # of which pip judges by this machine's Python
}
"""Distribution → how pip is asked for it: also where one is there, which does not serve then."""


class Interpreter(msgspec.Struct, frozen=True):
    """A board's Python as wheels are chosen for it: its ``version``, the machine's ``arch``, its C library's ``glibc``
    (``2.36``; empty: another C library)."""

    version: str
    arch: str
    glibc: str

    @property
    def minor(self) -> tuple[int, int]:
        """``(3, 10)``."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


class Wheel(msgspec.Struct, frozen=True):
    """A wheel that lies here. ``digest``: SHA-256 in hexadecimal."""

    path: Path
    digest: str


def requirements(installed: Sequence[str], needed: Sequence[str] = ()) -> tuple[str, ...]:
    """What pip is asked for so that packages run where the distributions ``installed`` are; empty: nothing lacks.

    ``needed``: distributions beside numpy; a runtime or a verifier among them is one that has to come, in a version
    that serves.
    """
    lacking = [] if "numpy" in installed else [NUMPY]
    lacking += [asked for name in needed for asked in _VERSIONS.get(name, ())]
    return (*lacking, *(name for name in needed if name not in installed and name not in _VERSIONS))


def platform_tags(interpreter: Interpreter, board: str) -> tuple[str, ...]:
    """The platforms whose wheels run on ``board``, the newest first.

    Raises:
        BoardUnfit: there are no wheels for its Python, architecture or C library; the message says which, and why.
    """
    if interpreter.minor < PYTHON:
        raise BoardUnfit(
            f"{board} has Python {line(interpreter.version)}; packages need {PYTHON[0]}.{PYTHON[1]} or newer, and "
            "--bootstrap brings libraries, no interpreter; install one with the board's package manager"
        )
    if interpreter.arch not in ARCHITECTURES:
        raise BoardUnfit(
            f"{board} is {line(interpreter.arch)}; there are wheels for {' and '.join(ARCHITECTURES)} alone; where its "
            "kernel is a 64-bit one install a 64-bit system"
        )
    numbers = re.match(r"2\.(\d{1,3})", interpreter.glibc)
    if not numbers or int(numbers[1]) < OLDEST_GLIBC:
        seen = f"glibc {line(interpreter.glibc)}" if interpreter.glibc else "no glibc, as on Alpine"
        raise BoardUnfit(
            f"{board} has {seen}; ONNX Runtime's wheels need glibc 2.{OLDEST_GLIBC} or newer; install a newer system"
        )
    tags = []
    for minor in range(int(numbers[1]), OLDEST_GLIBC - 1, -1):
        tags += [f"manylinux_2_{minor}_{interpreter.arch}"]
        tags += [f"{_LEGACY[minor]}_{interpreter.arch}"] if minor in _LEGACY else []
    return (*tags, f"linux_{interpreter.arch}")


def fetch_wheels(
    wanted: Sequence[str], tags: Sequence[str], interpreter: Interpreter, folder: Path, source: Path | None = None
) -> tuple[Wheel, ...]:
    """Wheels of ``wanted`` and all that these need, in ``folder``; by name. ``tags``: as ``platform_tags`` gives them.

    ``source``: a folder of wheels; they are taken from there alone, and no index is asked.

    Raises:
        EnvironmentMissing: there is no pip here. ConfigError: ``source`` is no folder.
        BoardUnfit: pip finds none that fit, or cannot reach its index; its last words are in the message.
    """
    if source is not None and not source.is_dir():
        raise ConfigError(f"--wheels {source}: no such folder; name the one that the wheels are in")
    command = [*_pip(), "download", "--disable-pip-version-check", "--no-input", "--quiet", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", "{}.{}".format(*interpreter.minor), "--dest", str(folder)]
    command += [part for tag in tags for part in ("--platform", tag)]
    command += ["--no-index", "--find-links", str(source.resolve())] if source is not None else []
    done = subprocess.run(
        [*command, "--", *wanted], stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_S, check=False
    )
    if done.returncode != 0:
        where = f"{source} has none" if source is not None else "pip finds none here"
        raise BoardUnfit(
            f"wheels of {', '.join(wanted)} for Python {'.'.join(map(str, interpreter.minor))} on {tags[0]}: {where}: "
            f"{_last_words(done.stderr)}; fetch them where there is an index, and give their folder with --wheels DIR"
        )
    return tuple(Wheel(path, digest_of(str(path))) for path in sorted(folder.glob("*.whl")))


def _pip() -> list[str]:
    from importlib.util import find_spec

    if find_spec("pip") is None:
        raise EnvironmentMissing(
            f"{sys.executable} has no pip, which chooses wheels for the board; install it with: python -m ensurepip"
        )
    return [sys.executable, "-m", "pip"]


def _last_words(stderr: bytes) -> str:
    errors = [text for text in stderr.decode("utf-8", "replace").splitlines() if text.startswith("ERROR:")]
    return shortened(line(errors[-1].removeprefix("ERROR:").strip())) if errors else "it does not say why"
