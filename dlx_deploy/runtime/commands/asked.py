"""The inputs that a command line names: arguments, a file of them, or standard input; never a file's name as a text."""

from __future__ import annotations

import io
from typing import Iterable, List, Optional, Sequence

from ..errors import InputError
from ..files import TooLarge, read_file, reason
from ..package.contents import Package

__all__ = ["STDIN", "asked_inputs", "listed"]

STDIN = "-"
MAX_FILE_BYTES = 1024**3


def asked_inputs(package: Package, named: Sequence[str], file: Optional[str], stdin: Iterable[str]) -> List[str]:
    """``named``, or the lines of ``file``, or those of ``stdin`` where the one name is ``-``: paths or texts.

    Raises:
        InputError: nothing or several of these, a file that cannot be read, or a word that is no sample of the task.
    """
    inputs = package.task.inputs
    if bool(named) == (file is not None):
        seen = "both are there" if named else "nothing is there"
        raise InputError(f"required: INPUT, {inputs.noun} (or {STDIN}: stdin), or --file, one a line; {seen}")
    if file is not None:
        return _some(_lines(file), file)
    if list(named) == [STDIN]:
        try:
            return _some(listed(named, stdin), "the standard input")
        except UnicodeDecodeError as e:
            raise InputError(f"the standard input is not UTF-8 ({e.reason} at byte {e.start})") from e
    for one in named:
        inputs.check_argument(one)
    return list(named)


def listed(named: Sequence[str], stdin: Iterable[str]) -> List[str]:
    """``named``; a lone ``-`` stands for the lines of ``stdin``."""
    return [line.rstrip("\r\n") for line in stdin] if list(named) == [STDIN] else list(named)


def _lines(file: str) -> List[str]:
    try:
        stream = io.TextIOWrapper(io.BytesIO(read_file(file, MAX_FILE_BYTES)), encoding="utf-8-sig")
        return listed([STDIN], stream)  # other separators of lines are text
    except TooLarge as e:
        raise InputError(f"{file}: has {e} bytes; at most {MAX_FILE_BYTES} are read") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{file}: is not UTF-8 ({e.reason} at byte {e.start})") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{file}: cannot be read ({reason(e)})") from e


def _some(lines: List[str], source: str) -> List[str]:
    if not lines:
        raise InputError(f"{source} holds nothing; give one input a line")
    return lines
