"""Files read so that nothing hangs, and written whole or not at all.

A pipe, a device or a socket that a user names is refused before it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import BinaryIO, Optional, Union

__all__ = ["PathLike", "TooLarge", "machine_fault", "open_file", "read_file", "reason", "write_atomically"]

PathLike = Union[str, "os.PathLike[str]"]
"""The name of a file or folder."""
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
FAULTS = {
    "ENOSPC": "make room there; where temporary files are, TMPDIR says",
    "EDQUOT": "make room there; where temporary files are, TMPDIR says",
    "EROFS": "name a folder that can be written; where temporary files are, TMPDIR says",
    "EIO": "look at the disk: the system's log says more",
    "EMFILE": "raise the limit: ulimit -n",
    "ENFILE": "end what has so many files open",
}
"""What is the machine's fault and nobody's bug, by the system's name for it, and what helps."""


class TooLarge(Exception):
    """Raised by ``read_file``; its text is the size in bytes."""


def open_file(path: PathLike) -> BinaryIO:
    """The plain file at ``path``, open for reading.

    Raises:
        OSError: there is no such file, it may not be read, or it is a folder, a pipe, a device or a socket, from which
            reading may never end.
        ValueError: ``path`` holds a null character.
    """
    # Without O_NONBLOCK opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind == stat.S_IFDIR:
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind != stat.S_IFREG:
        os.close(handle)
        raise OSError(errno.EINVAL, f"{KINDS.get(kind, 'no plain file')}; must be a plain file")
    return os.fdopen(handle, "rb")


def read_file(path: PathLike, most: int) -> bytes:
    """The bytes of the plain file at ``path``.

    Raises:
        OSError, ValueError: as ``open_file``.
        TooLarge: it has more than ``most`` bytes; none of them is kept.
    """
    with open_file(path) as f:
        size = os.fstat(f.fileno()).st_size
        if size > most:
            raise TooLarge(str(size))
        data = f.read(size + 1)  # Python asks the system for as much memory as is asked for here
        if len(data) > size:  # it grows, or has a size that the system does not say
            data += f.read(most + 1 - len(data))
    if len(data) > most:
        raise TooLarge(str(len(data)))
    return data


def write_atomically(path: PathLike, data: bytes, mode: Optional[int] = None) -> None:
    """Replaces ``path`` by ``data``: a reader, or a crash, sees the old bytes or the new ones, which are on the disk.

    ``mode``: the file's permissions; ``None``: what this process gives new files (its umask).

    Raises:
        OSError: the disk is full or not writable; ``path`` is then as it was before, and nothing lies beside it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # In the same folder, or the last step would be no rename; of this thread, as several may write one file.
    aside = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if mode is not None:
            os.chmod(aside, mode)
        os.replace(aside, path)
    except BaseException:  # Ctrl-C too must leave no litter
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def machine_fault(error: OSError) -> str:
    """What went wrong in words, if this machine has no more room, cannot write there, …; empty: another fault."""
    remedy = FAULTS.get(errno.errorcode.get(error.errno or 0, ""))
    where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, (str, os.PathLike)) else ""
    return f"{where}{reason(error)}; {remedy}" if remedy else ""


def reason(error: Exception) -> str:
    """Why a file cannot be read, in the system's words."""
    return getattr(error, "strerror", None) or str(error)
