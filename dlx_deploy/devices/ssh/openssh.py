"""A connection over the system's OpenSSH."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlx_deploy.devices.ssh.address import Address
from dlx_deploy.devices.ssh.connection import Answered
from dlx_deploy.devices.ssh.failures import last_words, lost
from dlx_deploy.devices.ssh.master import Master
from dlx_deploy.devices.ssh.process import Ended, Silent, run_process
from dlx_deploy.devices.ssh.there import MARK
from dlx_deploy.errors import BoardError, BoardLost, BoardUnfit
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.words import line

__all__ = ["SshConnection"]

CHUNK = 1 << 18
SILENCE_S = 120.0
"""A source that says nothing for so long is taken for stuck: a slow board imports its runtimes in half a minute."""
LIMIT = 64 << 20
"""Bytes of a file that is fetched: answers, no models."""
SSH_FAILED, NO_COMMAND = 255, 127
LOST_WITHIN_S = 0.5
HERE = Path(__file__).parent


class SshConnection:
    """A connection over the system's OpenSSH; it logs in when it is first used. ``python``: the interpreter there."""

    def __init__(self, address: Address, interpreter: str = "python3") -> None:
        self.address, self.interpreter = address, interpreter
        self._login: Master | None = None
        self._closing: weakref.finalize[..., Any] | None = None

    def __enter__(self) -> SshConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[SshConnection], tuple[Address, str]]:
        """A worker process that is given it logs in by itself."""
        return SshConnection, (self.address, self.interpreter)

    @property
    def name(self) -> str:
        """``ssh://…`` as it was addressed, without the folder."""
        return str(Address(self.address.host, self.address.user, self.address.port))

    def run(
        self, argv: Sequence[str], *, stdin: bytes | Path | None = None, timeout_s: float | None = None
    ) -> Answered:
        """As the protocol says, by the user's shell there."""
        done = self._exchange(argv, _chunks(stdin), silence_s=timeout_s)
        return Answered(done.exit_code, done.stdout, done.stderr)

    def python(
        self,
        source: str,
        argument: object,
        *,
        timeout_s: float = SILENCE_S,
        heard: Callable[[str], None] = lambda text: None,
        interpreter: str = "",
    ) -> JsonTable:
        """As the protocol says; a login shell that talks is not mistaken for the answer."""
        by = interpreter or self.interpreter
        return self._python(source, argument, (), silence_s=timeout_s, hold=True, heard=heard, by=by)

    def send(self, path: Path, remote: str, digest: str, progress: Progress = silent) -> None:
        """As the protocol says; ``remote.part`` is what arrived so far."""
        size, name = path.stat().st_size, line(path.name)
        asked = {"path": remote, "digest": digest, "bytes": size}
        there = self._receiving({"do": "partial", **asked})
        if there["whole"]:
            progress(size, size, f"{name} is there")
            return
        offset = there["bytes"] if _begins_with(path, there["bytes"], there["digest"]) else 0
        moved = [offset]

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as stream:
                stream.seek(offset)
                for chunk in iter(lambda: stream.read(CHUNK), b""):
                    yield chunk
                    moved[0] += len(chunk)
                    progress(moved[0], size, name)

        try:
            arrived = self._receiving({"do": "receive", "offset": offset, **asked}, chunks())
        except BoardLost as error:
            kept = f"about {moved[0]} of {size} bytes of {name} went over; what arrived is kept"
            raise BoardLost(f"{error} ({kept})") from error
        if arrived.get("busy"):
            raise BoardError(
                f"{self.name}: another copy of {name} is under way to {line(remote)}; wait until it is done"
            )
        if arrived.get("other"):
            raise BoardError(f"{self.name}: {name} arrived with other bytes than it had here (SHA-256); send it again")
        if not arrived.get("whole"):
            raise BoardLost(
                f"{self.name}: {arrived['bytes']} of {size} bytes of {name} arrived; run the same command again"
            )

    def fetch(self, remote: str, path: Path) -> None:
        """As the protocol says."""
        given = self._receiving({"do": "give", "path": remote, "limit": LIMIT})
        if "base64" not in given:
            raise BoardError(f"{self.name}: {line(remote)} has {given['bytes']} bytes; at most {LIMIT} are fetched")
        aside = path.with_name(f".{path.name}.part")
        aside.write_bytes(base64.b64decode(given["base64"]))
        os.replace(aside, path)

    def close(self) -> None:
        """As the protocol says; no process and no socket is left."""
        if self._closing is not None:
            self._closing()
        self._login = self._closing = None

    def _receiving(self, asked: Mapping[str, object], chunks: Iterable[bytes] = ()) -> JsonTable:
        source = (HERE / "receiving.py").read_text(encoding="utf-8")
        return self._python(source, asked, chunks, silence_s=SILENCE_S, by=self.interpreter)

    def _python(
        self,
        source: str,
        argument: object,
        more: Iterable[bytes],
        *,
        silence_s: float | None,
        by: str,
        hold: bool = False,
        heard: Callable[[str], None] = lambda text: None,
    ) -> JsonTable:
        start = (HERE / "there.py").read_bytes()
        sent, given = source.encode(), msgspec.json.encode(argument)
        header = msgspec.json.encode({"source": len(sent), "argument": len(given), "watch": hold})
        first = b"%d\n%s%s\n%s%s" % (len(start), start, header, sent, given)
        command = "import sys;s=sys.stdin.buffer;exec(compile(s.read(int(s.readline())),'<dlx-deploy>','exec'))"
        argv = [by, "-c", command]
        done = self._exchange(argv, _joined(first, more), silence_s=silence_s, hold=hold, heard=heard)
        if done.exit_code == NO_COMMAND:
            raise BoardUnfit(f"{self.name} has no {by} ({last_words(done.stderr)}); install Python 3 there")
        return self._answer(done, by)

    def _answer(self, done: Ended, by: str) -> JsonTable:
        marked = [text for text in done.stdout.decode("utf-8", "replace").split("\n") if text.startswith(MARK)]
        try:
            said = msgspec.json.decode(marked[-1][len(MARK) :], type=dict[str, Any])
        except (IndexError, msgspec.DecodeError):
            words = last_words(done.stderr) or "it says nothing"
            raise BoardError(f"{self.name}: {by} ended with exit code {done.exit_code}: {words}") from None
        if "failed" in said:
            words = line(f"{said['failed']}: {said['words']}")
            raise BoardError(f"{self.name}: {words} (Python {line(said['python'])} there)")
        answer: JsonTable = said["answer"]
        return answer

    def _exchange(
        self,
        argv: Sequence[str],
        chunks: Iterable[bytes],
        *,
        silence_s: float | None,
        hold: bool = False,
        heard: Callable[[str], None] = lambda text: None,
    ) -> Ended:
        login = self._logged_in()
        try:
            done = run_process(login.command(shlex.join(argv)), chunks, silence_s=silence_s, hold=hold, heard=heard)
        except Silent:
            raise BoardError(
                f"{self.name}: {line(argv[0])} has been silent for {silence_s:.0f} s and was given up"
            ) from None
        if done.exit_code == SSH_FAILED:
            if login.lost_within(LOST_WITHIN_S):
                said = login.said
                self.close()
                raise lost(self.name, f"while {line(argv[0])} ran there", said)
            words = last_words(done.stderr)
            raise BoardError(f"{self.name}: a signal ended {line(argv[0])} there, as where memory runs out ({words})")
        return done

    def _logged_in(self) -> Master:
        if self._login is not None and not self._login.alive:
            self.close()
        if self._login is None:
            self._login = login = Master(self.address)
            self._closing = weakref.finalize(self, login.close)
        return self._login


def _chunks(stdin: bytes | Path | None) -> Iterator[bytes]:
    if isinstance(stdin, Path):
        with stdin.open("rb") as stream:
            yield from iter(lambda: stream.read(CHUNK), b"")
    elif stdin:
        yield stdin


def _joined(first: bytes, more: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from more


def _begins_with(path: Path, count: int, digest: str) -> bool:
    """Whether the first ``count`` bytes of ``path`` are those that have ``digest``."""
    seen, left = hashlib.sha256(), count
    with path.open("rb") as stream:
        while left and (chunk := stream.read(min(CHUNK, left))):
            seen.update(chunk)
            left -= len(chunk)
    return not left and seen.hexdigest() == digest
