"""A build small enough to run in a test, shared by those that only read it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: torch's own choice, as many threads as cores in each, is several times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# In this process, where torch is imported once and what a test replaces is replaced; test_kill builds side by side.
os.environ.setdefault("DLX_DEPLOY_JOBS", "1")

from dlx_deploy import cli

from .warm import keep_operators, run_warm

LONG = (
    *("test_kill.py", "docs/test_commands.py", "test_build_text.py", "test_build.py", "test_build_segmentation.py"),
    *("test_bad_input.py", "test_readme.py", "search/test_searching.py", "test_cli.py", "test_oneline.py"),
    *("examples/test_text.py", "examples/test_segmentation.py", "examples/test_ci.py", "test_damage.py"),
)
"""Files whose tests build: they begin first, so that no worker is left with one of them when all others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What packages keep between starts goes to a folder of the tests' own, in this process and in those it starts."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(usual, "matplotlib"))  # its list of fonts takes seconds to make
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _operators_are_kept() -> None:
    """Of each export in this process a quarter would be torch's reading of its table of operators."""
    if "torch" in sys.modules:
        keep_operators()


TINY = [
    "threads=1",
    "data.test_fraction=0.2",
    "data.calibration_images=64",
    "teacher.model=resnet8",
    "teacher.arguments={width=0.5}",
    "teacher.epochs=3",
    "distill.arguments={width=0.5}",
    "distill.epochs=3",
    "prune.epochs=2",
    "prune.round_to=4",
    "verify.rounds=60",
    "compile.rounds=60",
    "gate.max_drop=0.9",
]


TEACHER_ALONE = ["distill.enabled=false", "prune.enabled=false"]
"""Settings of a build of one network: a third of the training and of the exports."""


def tiny(*more: str) -> list[str]:
    """``--set`` options of a build that takes seconds; later ones win."""
    return [part for override in (*TINY, *more) for part in ("--set", override)]


def image_folder(folder: Path, classes: dict[str, int], side: int = 12, split: str = "train") -> Path:
    """An image folder: class → number of PNG files; a class is a brightness, so it can be learned."""
    from PIL import Image

    rng = np.random.default_rng(["train", "validation", "test"].index(split))  # no image in two splits
    for number, (name, count) in enumerate(classes.items()):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (side, side + 3, 3)) + 80 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i:03}.png")
    return folder


@dataclass(frozen=True)
class Run:
    """One finished command line."""

    code: int
    out: str
    err: str


def dlx(*arguments: str | os.PathLike[str], cwd: Path, timeout_s: float = 900) -> Run:
    """``dlx-deploy`` in a process of its own."""
    done = run_warm(arguments, cwd, timeout_s)
    return Run(done.returncode, done.stdout, done.stderr)


class Here:
    """``dlx-deploy`` in this process, in a folder of its own: faster, as torch is imported once."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | os.PathLike[str]) -> Run:
        self._capsys.readouterr()
        code = cli.run([os.fspath(a) for a in arguments])
        captured = self._capsys.readouterr()
        return Run(code, captured.out, captured.err)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts this process, also where a shell began it in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` filled in one of the processes that run tests; all of them read it.

    It lies where ``DLX_TEST_BUILDS`` says, so that several runs of pytest share it, else among this run's own files.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    if given := os.environ.get("DLX_TEST_BUILDS"):
        root = Path(given)
        root.mkdir(parents=True, exist_ok=True)
    folder, made = root / name, root / f"{name}.made"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what one that failed has left
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished tiny build: ``.dlx`` and ``dist/digits-0.1.0-jetson-orin-nano-8gb.dlx``; read only."""

    def make(folder: Path) -> None:
        done = dlx("build", *tiny(), cwd=folder)
        assert done.code == 0, done.err

    return made_once(tmp_path_factory, "built", make)


PACKAGE = "dist/digits-0.1.0-jetson-orin-nano-8gb.dlx"
