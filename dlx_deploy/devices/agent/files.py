"""A board's files, read with a bound and replaced whole; the fields of a question; and how the agent refuses."""

import errno
import hashlib
import json
import os
import re
from typing import Dict, Optional

__all__ = [
    "Refusal",
    "Table",
    "digest_of",
    "fault_of",
    "field_digest",
    "field_number",
    "field_root",
    "field_table",
    "field_text",
    "read_table",
    "read_text",
    "settle",
    "write",
    "write_table",
]

Table = Dict[str, object]
"""A JSON object."""
MOST = 1 << 20  # bytes of a file that is read as text
CHUNK = 1 << 20


class Refusal(Exception):
    """Raised where the agent does not do what it was asked: ``kind`` for programs, ``text`` for people, ``more``."""

    def __init__(self, kind: str, text: str, more: Optional[Table] = None) -> None:
        super().__init__(text)
        self.kind, self.text, self.more = kind, text, more or {}

    def to_table(self) -> Table:
        """The fault as it is answered."""
        return dict(self.more, kind=self.kind, text=self.text)


def fault_of(error: OSError) -> Refusal:
    """The system's refusal in words, with what helps."""
    path = str(error.filename or "")
    where = "%s: " % path if path else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(
            "no-space", "%sno space is left there; remove what is not needed, or name another folder" % where
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = "%s%s; name a folder that this user may write, or one on another file system" % (where, error.strerror)
        return Refusal("not-writable", text)
    return Refusal("system", "%s%s" % (where, error.strerror or error))


def field_text(asked: Table, name: str) -> str:
    """The text called ``name`` in a question."""
    value = asked.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise Refusal("question", "%s is %r; must be a text" % (name, value))
    return value


def field_number(asked: Table, name: str, least: float) -> float:
    """The number called ``name`` in a question, not below ``least``."""
    value = asked.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        raise Refusal("question", "%s is %r; must be a number from %g on" % (name, value, least))
    return value


def field_table(asked: Table, name: str) -> Table:
    """The table called ``name`` in a question; empty where there is none."""
    value = asked.get(name, {})
    if not isinstance(value, dict):
        raise Refusal("question", "%s is %r; must be a table" % (name, value))
    return value


def field_digest(asked: Table) -> str:
    """The SHA-256 of a package in hexadecimal: nothing else becomes part of a path."""
    value = field_text(asked, "digest")
    if not re.match(r"[0-9a-f]{64}\Z", value):
        raise Refusal("question", "digest is %r; must be a SHA-256 in hexadecimal" % value)
    return value


def field_root(asked: Table) -> str:
    """The folder of a package's releases: absolute, ``~`` being the home folder."""
    path = os.path.expanduser(field_text(asked, "path"))
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(os.path.expanduser("~"), path))


def read_text(path: str) -> str:
    """What the file says, without zeros and space at its ends; empty where it cannot be read."""
    try:
        with open(path, "rb") as f:
            return f.read(MOST).decode("utf-8", "replace").strip("\0\n\t ")
    except OSError:
        return ""


def read_table(path: str) -> Table:
    """The JSON table in a file; empty where there is none, or it is damaged."""
    try:
        values = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def write_table(path: str, values: Table) -> None:
    """Replaces the file by ``values`` as JSON, wholly or not at all."""
    write(path, (json.dumps(values, sort_keys=True, indent=1) + "\n").encode("utf-8"))


def write(path: str, data: bytes) -> None:
    """Replaces the file by ``data``, wholly or not at all; it is on the disk afterwards.

    One at a time, by the guard of the folder: what a killed one leaves beside the file is what the next one writes.
    """
    aside = path + ".new"
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise
    settle(os.path.dirname(path))


def settle(folder: str) -> None:
    """What was renamed in the folder stays so if the power fails now."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some file systems have no such call for folders
        pass
    finally:
        os.close(handle)


def digest_of(path: str) -> str:
    """The SHA-256 of a file in hexadecimal; empty where it is not there."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            for chunk in iter(lambda: f.read(CHUNK), b""):
                found.update(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return found.hexdigest()
