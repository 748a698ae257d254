"""A board in this process: the agent works on a folder, files are copied, what packages answer is told it.

What ``fake_board`` does with real processes, for tests of many pushes. The connection can break off anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlx_deploy.devices.agent.main import answer
from dlx_deploy.devices.agent.sending import agent_source
from dlx_deploy.devices.ssh.connection import Answered
from dlx_deploy.devices.verifying import verifying_source
from dlx_deploy.errors import BoardLost
from dlx_deploy.progress import Progress, silent

__all__ = ["HereBoard"]

RUNTIME = {"python": "3.10.12", "numpy": "1.26.4", "onnxruntime": "1.19.2", "pillow": "10.0"}


class HereBoard:
    """``claims``: facts in the place of those of this machine. ``answers``: command of a package → exit code, JSON and
    last words there. ``asked``: what was done, in order.

    ``lose``: the connection breaks off where the agent gets this command, or with ``"+"`` before its name, once the
    agent has done it; ``cut``: after so many bytes of a file. ``meddle``: done there once a package is installed.
    ``verifier``: the Python that a signature was verified by.
    """

    name = "ssh://user@board"

    def __init__(self, home: Path, **claims: Any) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.claims: dict[str, Any] = {"arch": "x86_64", "versions": RUNTIME, "clock_ahead_s": 0.5, **claims}
        self.answers: dict[str, tuple[int, dict[str, Any], str]] = {}
        self.asked: list[str] = []
        self.lose: str | None = None
        self.cut: int | None = None
        self.broken = False
        self.meddle: Callable[[], object] | None = None
        self.verifier = ""

    @property
    def root(self) -> Path:
        return self.home / "dlx-deploy" / "tiny"

    @property
    def current(self) -> str | None:
        link = self.root / "current"
        return hashlib.sha256((link / "package.dlx").read_bytes()).hexdigest() if link.exists() else None

    def python(self, source: str, argument: Any, **options: Any) -> dict[str, Any]:
        argument = msgspec.json.decode(msgspec.json.encode(argument))
        command = argument.get("command", "verify")
        self.asked.append(command)
        self._break_off(command)
        if source == verifying_source():
            self.verifier = options["interpreter"]
            return self._done(source, argument)
        assert source == agent_source()
        home = os.environ["HOME"]
        os.environ["HOME"] = str(self.home)
        try:
            said: dict[str, Any] = answer(argument)
        finally:
            os.environ["HOME"] = home
        if command in ("facts", "look") and "ok" in said:
            (said["ok"] if command == "facts" else said["ok"]["facts"]).update(self.claims)
        self._break_off("+" + command)
        if self.meddle is not None and command == "install":
            self.meddle()
        return said

    def run(self, argv: Sequence[str], *, stdin: Any = None, timeout_s: float | None = None) -> Answered:
        self.asked.append(" ".join(argv))
        command = next((word for word in argv if word in ("engine", "selftest", "bench")), "")
        self._break_off(command)
        code, told, said = self.answers.get(command, (0, {"verdict": "pass"}, ""))
        return Answered(code, b"welcome\n{\n" + msgspec.json.encode(told)[1:], f"talk\n{said}\n")

    def send(self, path: Path, remote: str, digest: str, progress: Progress = silent) -> None:
        self.asked.append(f"send {path.name}")
        data, at = path.read_bytes(), Path(remote)
        at.parent.mkdir(parents=True, exist_ok=True)
        part = at.with_name(at.name + ".part")
        there = part.read_bytes() if part.exists() else b""
        assert data.startswith(there)
        left = data[len(there) :] if self.cut is None else data[len(there) : self.cut]
        with part.open("ab") as f:
            f.write(left)
        if self.cut is not None:
            self.cut, self.lose = None, "copy"
            self._break_off("copy")
        part.rename(at)

    def fetch(self, remote: str, path: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.asked.append("close")

    def _done(self, source: str, argument: Any) -> dict[str, Any]:
        room: dict[str, Any] = {}
        exec(compile(source, "<sent>", "exec"), room)
        said: dict[str, Any] = room["main"](argument)
        return said

    def _break_off(self, moment: str) -> None:
        """Once broken it stays so, until ``lose`` is taken back."""
        self.broken = self.lose is not None and (self.broken or self.lose == moment)
        if self.broken:
            raise BoardLost(f"{self.name}: the connection broke off")
