"""Releases on a board over SSH: pushed, damaged, killed half-way, cut off by a reboot, and taken back.

One test, as each step begins where the one before it ended; it prints what was typed, what came of it and how long that
took.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.report.proofs import proofs_beside
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import open_package

from .board import Board
from .conftest import JUDGED, Built

pytestmark = pytest.mark.board
ROOT = "dlx-deploy/digits"
MORE_BYTES = 6 * 1024**2
"""So much longer are the releases that are killed on their way: a kill must find them there."""
PART_WAY = 1024**2
WAIT_S = 120.0


@dataclass
class Operator:
    """Who types, and what came of it."""

    board: Board
    began: float = field(default_factory=time.monotonic)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """``dlx-deploy`` begun."""
        command = [sys.executable, "-m", "dlx_deploy.cli", *map(str, words)]
        environment = {**os.environ, "DLX_DEPLOY_SSH": self.board.ssh}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def types(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        """The answer of ``dlx-deploy … --json``, which ends with ``code``."""
        process = self.start(*words, "--json")
        out, err = process.communicate(timeout=600)
        self.tell(f"dlx-deploy {' '.join(Path(str(w)).name for w in words)} -> {process.returncode}")
        assert process.returncode == code, err
        assert "Traceback" not in err
        answer: dict[str, Any] = json.loads(out) if out else {"said": err}
        return answer

    def pushes(self, package: Path) -> dict[str, Any]:
        """What came of a push, on the one board that there is."""
        (one,) = self.types("push", package, self.board.address, "--skip-bench")["boards"]
        told: dict[str, Any] = one
        self.tell(f"  {told['outcome']}; {told['bytes_there']:,} of {told['size_bytes']:,} bytes were there")
        return told

    def tell(self, text: str) -> None:
        """A line of the transcript."""
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def current(self) -> str:
        """The digest of the release in use; its package must be whole."""
        said = self.board.run(f"readlink {ROOT}/current; sha256sum < {ROOT}/current/package.dlx").split()
        assert said[0] == f"releases/{said[1]}", "what is current is not what its name says"
        return said[1]

    def interrupted(self, package: Path, cut: Callable[[subprocess.Popen[str]], None]) -> int:
        """A push of ``package`` that ``cut`` ends once some of it has come; gives the bytes that were there then."""
        digest = sha256(package)
        part = self.board.disk / "home" / "edge" / ROOT / "incoming" / f"{digest}.part"
        process = self.start("push", package, self.board.address, "--skip-bench")
        until = time.monotonic() + WAIT_S
        come = 0
        while come < PART_WAY:
            come = part.stat().st_size if part.exists() else 0
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "nothing comes"
        cut(process)
        return come


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def release(package: Path, out: Path, version: str, more: int = 0) -> Path:
    """``package`` as another version, its card longer by ``more`` bytes."""
    with zipfile.ZipFile(package) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    index = json.loads(files["package.json"])
    card = files["MODEL_CARD.md"] + os.urandom(more // 2).hex().encode()
    index["version"] = version
    index["files"]["MODEL_CARD.md"] = {"sha256": hashlib.sha256(card).hexdigest(), "size": len(card)}
    path = out / f"digits-{version}.dlx"
    write_archive(path, {**files, "MODEL_CARD.md": card, "package.json": to_json(index)})
    assert open_package(path).version == version
    return path


def test_releases_come_whole_or_not_at_all(board: Board, packages: Built, tmp_path: Path) -> None:
    print()
    operator = Operator(board)
    first = release(packages.int8, tmp_path, "1.0.0")
    second, third = (release(packages.int8, tmp_path, version, MORE_BYTES) for version in ("2.0.0", "3.0.0"))

    told = operator.pushes(first)
    assert (told["outcome"], [step["name"] for step in told["steps"]]) == ("current", ["selftest"])
    assert told["facts"]["arch"] == "aarch64"
    assert operator.current() == sha256(first)

    told = operator.types("verify", packages.int8, "--on", board.address, "--data", packages.pictures)
    (proof,) = proofs_beside(packages.int8).values()
    assert (proof.accuracy, told["verdict"]["images"]) == ("pass", JUDGED)
    assert proof.machine

    operator.tell("a byte of the release there changes")
    member = f"{ROOT}/releases/{sha256(first)}/package.dlx"
    board.run(f"printf X | dd of={member} bs=1 seek=300000 conv=notrunc status=none")
    assert board.run(f"python3 {member} selftest 2>&1; echo $?").endswith("\n2"), "refused where it lies"
    assert operator.pushes(first)["outcome"] == "current"
    assert operator.current() == sha256(first)

    killed = operator.interrupted(second, lambda process: os.killpg(process.pid, signal.SIGKILL))
    operator.tell(f"push of 2.0.0 killed (-9) with {killed:,} of {second.stat().st_size:,} bytes there")
    assert operator.current() == sha256(first)
    told = operator.pushes(second)
    assert told["bytes_there"] >= PART_WAY, "it goes on from what came"
    assert told["before"] == sha256(first)
    assert operator.current() == sha256(second)

    ended: list[subprocess.Popen[str]] = []

    def power_cut(process: subprocess.Popen[str]) -> None:
        board.power_off()
        ended.append(process)

    cut = operator.interrupted(third, power_cut)
    _, err = ended[0].communicate(timeout=WAIT_S)
    operator.tell(f"the board lost its power with {cut:,} of {third.stat().st_size:,} bytes there")
    operator.tell(f"  push ended with {ended[0].returncode}: {err.strip().splitlines()[-1]}")
    assert ended[0].returncode == 4
    assert "Traceback" not in err
    board.boot()
    operator.tell("the board is back")
    assert operator.current() == sha256(second)
    assert operator.pushes(third)["bytes_there"] >= PART_WAY
    assert operator.current() == sha256(third)

    operator.types("push", third, board.address, "--rollback")
    assert operator.current() == sha256(second)
    assert "self-test passed" in board.run(f"python3 {ROOT}/current/package.dlx selftest")
