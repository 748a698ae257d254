"""The border to the terminal: what is printed is escaped, and a stream that is closed or broken ends nothing.

Used by both command lines, that of a package and ``dlx-deploy``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Generator, Optional, TextIO

from .errors import InputError
from .words import escaped

__all__ = ["ready", "show", "show_each", "silence", "talk"]


def ready() -> None:
    """Puts an empty stream in the place of each that the process was started without (``>&-``).

    Otherwise the first file that is opened would get its number, and what C code prints would land in that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number and _is_free(number):
                os.dup2(handle, number)
                os.close(handle)
                handle = number
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8"))


def show(text: str) -> None:
    """Prints a result on stdout. A reader that went away, for instance ``head``, has what it wanted.

    Raises:
        InputError: stdout cannot be written for another reason: a full disk.
    """
    _is_shown(text)


def show_each(lines: Generator[str, None, None]) -> None:
    """Prints each line as it comes, and asks for no more of them when the reader went away; then ``lines`` are closed.

    Raises:
        InputError: as ``show``.
    """
    with contextlib.closing(lines):
        for text in lines:
            if not _is_shown(text):
                return


def _is_shown(text: str) -> bool:
    """Whether somebody still reads what is printed on stdout."""
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        silence(sys.stdout)
        return False
    except OSError as e:
        silence(sys.stdout)
        raise InputError(
            f"the standard output cannot be written ({e.strerror}); what it goes to is full or gone"
        ) from e
    return True


def talk(text: str) -> None:
    """Prints a line on stderr, as far as it can be."""
    try:
        _write(sys.stderr, text)
    except OSError:
        silence(sys.stderr)


def silence(stream: Optional[TextIO]) -> None:
    """Lets what is still to be written to a broken stream go nowhere, so that the end of the process is quiet."""
    if stream is None:
        return
    with contextlib.suppress(OSError):  # no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(stream: Optional[TextIO], text: str) -> None:
    if stream is None:
        return
    text = escaped(text) + "\n"
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a terminal without UTF-8
        stream.write("".join(c if c.isascii() else c.encode("ascii", "backslashreplace").decode() for c in text))
    stream.flush()


def _is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
