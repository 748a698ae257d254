"""Files of class names, which fix the order of classes. Standard library only: a warm build asks this too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlx_deploy.errors import DataError
from dlx_deploy.runtime.files import TooLarge, read_file, reason
from dlx_deploy.runtime.tasks.labels import alike, composed, synset

__all__ = ["ClassList", "check_names", "read_class_list", "read_names"]

_MOST_BYTES = 64 * 2**20
_NUMBERS = ("class_to_idx", "label2id")
_NAMES = ("id2label", "idx_to_class", "classes", "class_names", "labels", "names")
"""Where JSON files keep names by number or numbers by name, as Hugging Face's config.json does."""
_INTEGER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ClassList:
    """``names``: the classes in the order of their numbers. A folder or a label means one by its whole name, or by the
    synset that the name begins with."""

    path: Path
    names: tuple[str, ...]

    def find(self, label: str) -> str | None:
        """The class that ``label`` means, or ``None``."""
        return self._by_label().get(composed(label))

    def find_all(self, labels: Sequence[str]) -> dict[str, str | None]:
        """Label → the class that it means, or ``None``."""
        known = self._by_label()
        return {label: known.get(composed(label)) for label in labels}

    def _by_label(self) -> dict[str, str]:
        synsets = {key: name for name in self.names if (key := synset(name))}
        return {**synsets, **{name: name for name in self.names}}


def read_class_list(path: Path) -> ClassList:
    """The classes in a text file, a line each from 0 on, or in JSON: a list, names by number or numbers by name.

    A line of ImageNet's synset files, ``n01440764 tench, Tinca tinca``, is one class, whose folder is ``n01440764``.

    Raises:
        DataError: it cannot be read, or names are missing, empty or alike.
    """
    if path.suffix.lower() != ".json":
        return ClassList(path, tuple(read_names(path)))
    try:
        names = _ordered(json.loads(_text(path)))
    except (ValueError, RecursionError, TypeError) as e:
        raise DataError(
            f"{path}: no list of classes ({e}); rule: a list of names, {{number: name}} or {{name: number}}"
        ) from e
    return ClassList(path, tuple(check_names(path, names)))


def read_names(path: Path) -> list[str]:
    """The names in a text file, a line each.

    Raises:
        DataError: it cannot be read, or names are empty or alike.
    """
    return check_names(path, [line.strip() for line in _text(path).rstrip().split("\n")])


def _text(path: Path) -> str:
    try:
        return read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError as e:
        raise DataError(f"{path}: no such file; it names the classes, a line each") from e
    except TooLarge as e:
        raise DataError(f"{path}: has {e} bytes; a file of class names has at most {_MOST_BYTES}") from e
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read as UTF-8 ({reason(e)})") from e


def check_names(path: Path, names: Sequence[str]) -> list[str]:
    """``names``, one for each class, in composed Unicode; ``path``: the file that says them.

    Raises:
        DataError: one is empty, has characters that cannot be seen, or is like another.
    """
    names = [composed(name) for name in names]
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is empty; rule: a name for each value, from 0 on")
    if odd := next((name for name in names if not name.isprintable()), None):
        raise DataError(f"{path}: {odd!a} holds a character that cannot be seen; rule: a name of printable characters")
    if two := alike(names):
        raise DataError(f"{path}: {two[0]!r} and {two[1]!r} look alike; rule: a name of its own for each class")
    twice = sorted(name for name in set(names) if names.count(name) > 1) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{path}: {twice[0]!r} comes twice; rule: a name of its own for each class")
    return names


def _ordered(value: object) -> list[str]:
    """The names in what a JSON file holds, in the order of their numbers."""
    if isinstance(value, dict):
        inside = next((value[key] for key in (*_NUMBERS, *_NAMES) if key in value), value)
        pairs = [_numbered(key, item) for key, item in inside.items()] if isinstance(inside, dict) else []
        if isinstance(inside, list):
            return _ordered(inside)
        numbers = sorted(number for number, _ in pairs)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"its numbers are not 0 to {len(numbers) - 1}, one each")
        return [name for _, name in sorted(pairs)]
    if not isinstance(value, list) or not value:
        raise ValueError(f"it holds a {type(value).__name__}")
    return [_name(item) for item in value]


def _numbered(key: str, value: object) -> tuple[int, str]:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, key.strip()
    if not _INTEGER.fullmatch(key):
        raise ValueError(f"{key!r} has no number")
    return int(key), _name(value)


def _name(value: object) -> str:
    """A name; of Keras' ``["n01440764", "tench"]`` both."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no name")
    return str(value).strip()
