"""Files that lie on a board by the SHA-256 of their bytes, so that what came once is not sent again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dlx_deploy.devices.sent import sent_source
from dlx_deploy.devices.sent.unpacking import CHUNK, digest_of, digest_of_file
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.files import open_file, reason
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.runtime.telling import telling

__all__ = ["KEPT", "RUNTIME", "Kept"]

KEPT = ".cache/dlx-deploy/kept"
"""Where they lie there, below the user's home."""
KEPT_BYTES = 4 << 30
"""Of files that this process has not asked for: those of earlier runs."""
RUNTIME = "dlx_runtime"
SILENCE_S = 1800.0
"""A large archive on a slow card is unpacked for minutes."""


class Kept:
    """What was put on the board behind ``connection``; ``say`` hears how far a file is that goes there."""

    def __init__(self, connection: Connection, say: Callable[[str], None]) -> None:
        self._connection, self._say = connection, say
        self._put: dict[str, Path] = {}

    def put(self, path: Path) -> str:
        """Where the bytes of ``path`` are there from now on.

        Raises:
            InputError: it cannot be read here. BoardError: they cannot be written there, see ``Connection.send``.
        """
        digest = _digest_of(path)
        remote = f"{KEPT}/{digest}{path.suffix}"
        if remote not in self._put:
            self._send(path, remote, digest)
            self._keep(remote, path)
        return remote

    def put_all(self, files: Mapping[str, Path]) -> str:
        """The folder there that has ``files``, by their names in it; they go over as one archive.

        What lies there is held against their SHA-256 each time, as of single files, and made anew if it differs.

        Raises:
            InputError: one cannot be read here. BoardError: as ``put``, or one was changed while they went over.
        """
        digest = _digest_of_all(files)
        remote = f"{KEPT}/{digest}.files"
        if remote in self._put:
            return remote
        with Scratch("dlx-deploy-work") as folder:
            path = folder / "files.zip"
            _pack(path, files)
            packed = digest_of_file(path)
            asked = {"folder": remote, "archive": f"{KEPT}/{packed}.zip", "digest": digest}
            if not self._unpacked(asked):
                self._send(path, asked["archive"], packed)
                if not self._unpacked(asked):
                    raise BoardError(
                        f"{self._connection.name}: {len(files)} files came there, and are not those of here: one was "
                        "changed while they went over; do it again"
                    )
            self._keep(remote, path)
        return remote

    def origin(self, remote: str) -> Path:
        """The file here that was put at ``remote``."""
        return self._put[remote]

    def put_runtime(self) -> str:
        """Where this dlx-deploy's own runtime lies there."""
        from dlx_deploy.runtime.package.archive import write_archive
        from dlx_deploy.runtime.sources import own_sources

        with Scratch("dlx-deploy-work") as folder:
            path = folder / "runtime.zip"
            write_archive(path, {f"{RUNTIME}/{name}": data for name, data in own_sources().items()})
            return self.put(path)

    def _send(self, path: Path, remote: str, digest: str) -> None:
        with telling(self._say, f"to {self._connection.name}") as tell:
            self._connection.send(path, remote, digest, lambda done, total, text="": tell(done, total, text))

    def _unpacked(self, asked: Mapping[str, str]) -> bool:
        return bool(self._connection.python(sent_source("unpacking"), asked, timeout_s=SILENCE_S)["there"])

    def _keep(self, remote: str, path: Path) -> None:
        """It and what was put before are kept; of what earlier runs have left, what was used last."""
        self._put[remote] = path
        names = [kept.rpartition("/")[2] for kept in self._put]
        asked = {"folder": KEPT, "names": names, "limit_bytes": KEPT_BYTES}
        self._connection.python(sent_source("keeping"), asked, timeout_s=SILENCE_S)


def _pack(path: Path, files: Mapping[str, Path]) -> None:
    """Write ``files`` as an archive at ``path``; of the same files it has the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as into:
                for chunk in _chunks(files[name]):
                    into.write(chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with open_file(path) as stream:
            yield from iter(lambda: stream.read(CHUNK), b"")
    except (OSError, ValueError) as e:  # of the file alone: what is done with its bytes is done elsewhere
        raise _unreadable(path, e) from e


def _digest_of(path: Path) -> str:
    try:
        open_file(path).close()  # a pipe would never end
        return digest_of_file(path)
    except (OSError, ValueError) as e:
        raise _unreadable(path, e) from e


def _digest_of_all(files: Mapping[str, Path]) -> str:
    try:
        return digest_of(files)
    except OSError as e:
        raise _unreadable(e.filename or f"one of {len(files)} files", e) from e


def _unreadable(path: object, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({reason(error)}); all files that go to a board must be")
