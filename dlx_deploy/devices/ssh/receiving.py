"""What a board does of a file's journey: how much of it is there, take the rest, give one back. Sent as text.

Standard library, Python 3.6's syntax. A file arrives as ``NAME.part``; what arrived is kept over a broken connection,
and only a whole one, of the bytes that were promised, gets its name, by one rename.
"""

import base64
import fcntl
import hashlib
import os
import signal
import sys
from typing import Any, BinaryIO, Dict

__all__ = ["main"]

CHUNK = 1 << 16
SILENCE_S = 100
"""A sender who sends nothing for so long is lost, though nobody says so: its half of a file is free for the next one.
Less than a sender waits for a board."""


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Do ``argument["do"]``: ``partial``, ``receive`` or ``give``, of the file ``argument["path"]``."""
    return {"partial": partial, "receive": receive, "give": give}[argument["do"]](argument)


def partial(argument: Dict[str, Any]) -> Dict[str, Any]:
    """How many bytes are there and their SHA-256; ``whole``: under the file's name, and they are those promised."""
    path = argument["path"]
    if os.path.isfile(path) and digest_of(path) == argument["digest"]:
        return {"whole": True, "bytes": os.path.getsize(path), "digest": argument["digest"]}
    part = path + ".part"
    there = os.path.isfile(part) and not os.path.islink(part)
    return {
        "whole": False,
        "bytes": os.path.getsize(part) if there else 0,
        "digest": digest_of(part) if there else hashlib.sha256().hexdigest(),
    }


def receive(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Take what follows in standard input as the bytes from ``offset`` on; ``bytes`` in all, of ``digest``."""
    path = argument["path"]
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(path + ".part", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "r+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return {"busy": True}
        if not is_still(path + ".part", part):  # who held it before gave it the file's name meanwhile
            return {"busy": True}
        part.truncate(argument["offset"])
        part.seek(argument["offset"])
        arrived = argument["offset"] + take(sys.stdin.buffer, part, argument["bytes"] - argument["offset"])
        part.flush()
        os.fsync(part.fileno())
        if arrived < argument["bytes"]:
            return {"bytes": arrived}
        if digest_of(path + ".part") != argument["digest"]:
            os.unlink(path + ".part")
            return {"bytes": arrived, "other": True}
        os.rename(path + ".part", path)
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)
    return {"bytes": arrived, "whole": True}


def take(stream: BinaryIO, part: BinaryIO, count: int) -> int:
    """How many of ``count`` bytes of ``stream`` came before it ended; each is written as it comes.

    After ``SILENCE_S`` without one a signal ends this process, by its default.
    """
    left = count
    while left:
        signal.alarm(SILENCE_S)
        chunk = stream.read1(min(CHUNK, left))  # type: ignore[attr-defined]
        signal.alarm(0)
        if not chunk:
            break
        part.write(chunk)
        part.flush()
        left -= len(chunk)
    return count - left


def is_still(path: str, stream: BinaryIO) -> bool:
    """Whether ``stream`` is the file that has the name ``path`` now."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def give(argument: Dict[str, Any]) -> Dict[str, Any]:
    """The bytes of a file of at most ``limit`` bytes, as base64."""
    size = os.path.getsize(argument["path"])
    if size > argument["limit"]:
        return {"bytes": size}
    with open(argument["path"], "rb") as stream:
        return {"bytes": size, "base64": base64.b64encode(stream.read()).decode("ascii")}


def digest_of(path: str) -> str:
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
