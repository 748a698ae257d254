"""Files that came as one archive, as files: a folder of them is there whole and as they were, or not at all.

Python 3.6's syntax and the standard library; ``digest_of`` is asked on both sides.
"""

import hashlib
import os
import shutil
import zipfile
from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, Mapping, Union

__all__ = ["digest_of", "digest_of_file", "main"]

CHUNK = 1 << 20


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Whether the ``folder`` has the files of this ``digest``; one that has others goes, and where the ``archive`` is
    the folder is made of it, which then goes too."""
    folder, archive, digest = argument["folder"], argument["archive"], argument["digest"]
    if is_there(folder, digest):
        return {"there": True}
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.isfile(archive):
        return {"there": False}
    aside = "%s.%d" % (folder, os.getpid())
    try:
        with made(aside):
            unpack(archive, aside)
            os.rename(aside, folder)
    except OSError:
        if not os.path.isdir(folder):  # it is where another does the same at the same time
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.unlink(archive)
    return {"there": is_there(folder, digest)}


@contextmanager
def made(folder: str) -> Iterator[None]:
    """Inside, the folder is there and locked: one that is not is left of a process that was ended, see ``keeping``."""
    import fcntl  # where this is asked from there may be none

    shutil.rmtree(folder, ignore_errors=True)  # of a process of this number that was ended
    os.mkdir(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def unpack(archive: str, folder: str) -> None:
    """The files of the archive in the folder; they are on the disk when this is done."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    os.sync()  # and not file by file: thousands take minutes on a card


def is_there(folder: str, digest: str) -> bool:
    """Whether the folder has these files and no others."""
    paths = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    try:
        return bool(paths) and digest_of({os.path.relpath(path, folder): path for path in paths}) == digest
    except OSError:  # unreadable, or another takes it away
        return False


def digest_of(files: Mapping[str, Union[str, "os.PathLike[str]"]]) -> str:
    """The SHA-256 of what files are called and of their bytes, by the names that they have in a folder.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(("%s %s\n" % (digest_of_file(files[name]), name)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def digest_of_file(path: Union[str, "os.PathLike[str]"]) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
