"""Labelled data on a device: images in class folders, texts in a file, or the arrays of a data folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Sequence, Tuple, TypeVar

import numpy as np

from ..errors import InputError
from ..filenames import DATA_HEADER, LABELLED_TEXTS, SLICES
from ..files import PathLike, TooLarge, open_file, read_file
from ..strict_json import from_json
from ..untyped import Array
from ..words import GROUP_COLUMN, said
from .arrays import Arrays
from .classes import LABEL
from .framing import Framing
from .images import load_image
from .labelled_images import few, labelled_images, listed_columns, number_of
from .tables import columns_of, columns_there
from .text_files import distinct, read_lines, read_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "columns_of_images",
    "columns_of_texts",
    "load_labelled_images",
    "load_labelled_texts",
    "load_npy",
    "load_prepared",
    "name_labelled_images",
    "name_labelled_texts",
    "stored_columns",
]

_log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_HEADER_BYTES = 1024**3  # of a JSON file in a data folder: its texts


def load_labelled_images(path: PathLike, labels: Sequence[str], framing: Framing) -> Tuple[NDArray[np.uint8], Arrays]:
    """The images that ``labelled_images`` names, and their class numbers.

    Gives uint8[N, H, W, C], 0..255, and ``label``: int64[N]. A data folder with a ``dataset.json`` gives the arrays of
    its test split.

    Raises:
        InputError: as ``labelled_images``, or an image that cannot be read;
            a data folder that is damaged, or of other classes.
        BackendMissing: Pillow is not here.
    """
    root = Path(path)
    if (root / DATA_HEADER).is_file():
        return _with_labels(root, labels, lambda: load_npy(root / "test.images.npy"))
    listed = labelled_images(root, labels)
    images = np.stack([load_image(image.path, framing) for image in listed])
    return images, {LABEL: np.array([image.number for image in listed], np.int64)}


def name_labelled_images(path: PathLike, labels: Sequence[str]) -> List[str]:
    """The files of ``load_labelled_images``, in its order; none of a data folder: its images are in one array.

    Raises:
        InputError: as ``labelled_images``.
    """
    if (Path(path) / DATA_HEADER).is_file():
        return []
    return [str(image.path) for image in labelled_images(path, labels)]


def columns_of_images(path: PathLike, names: Sequence[str]) -> Dict[str, List[str]]:
    """What each of ``load_labelled_images`` has in those of the columns ``names`` that there are.

    Raises:
        InputError: as ``listed_columns``, or a data folder's table of them is damaged.
    """
    root = Path(path)
    return stored_columns(root, names) if (root / DATA_HEADER).is_file() else listed_columns(root, names)


def columns_of_texts(path: PathLike, names: Sequence[str]) -> Dict[str, List[str]]:
    """What each of ``load_labelled_texts`` has in those of the columns ``names`` that there are.

    Raises:
        InputError: as ``text_files.read_lines``, or a data folder's table of them is damaged.
    """
    root = Path(path)
    if (root / DATA_HEADER).is_file():
        return stored_columns(root, names)
    file = _text_file(root)
    there = columns_there(file, names, "labelled texts")
    sliced = [name for name in there if name != GROUP_COLUMN]
    first: Dict[str, Tuple[str, Tuple[str, ...]]] = {}
    for row in read_lines(file, sliced) if there else ():
        first.setdefault(distinct(row.text), (row.group if GROUP_COLUMN in there else "", row.slices))
    return columns_of(list(first.values()), sliced)


def stored_columns(root: Path, names: Sequence[str]) -> Dict[str, List[str]]:
    """Those of ``names`` in the table beside the data folder ``root``, if there is one.

    Raises:
        InputError: it is damaged.
    """
    file = Path(os.path.dirname(os.path.abspath(root))) / SLICES
    if not file.is_file():
        return {}
    try:
        table = from_json(read_file(file, MAX_HEADER_BYTES))
    except (OSError, ValueError, TooLarge) as e:
        raise InputError(f"{file}: not a table of slices ({said(e)}); make the data again") from e
    if not isinstance(table, dict):
        raise InputError(f"{file}: not a table of slices; make the data again")
    found: Dict[str, List[str]] = {}
    for name in (name for name in names if name in table):
        values = table[name]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InputError(f"{file}: not a table of slices (at {name!a}); make the data again")
        found[name] = values
    return found


def load_labelled_texts(path: PathLike, labels: Sequence[str]) -> Tuple[List[str], Arrays]:
    """The texts in the .csv or .jsonl file at ``path`` (or of the test split in a folder), and ``label``: int64[N].

    A data folder with a ``dataset.json`` gives its test split.

    Raises:
        InputError: as ``text_files.read_texts``, or other classes than ``labels``.
    """
    root = Path(path)
    if (root / DATA_HEADER).is_file():
        return _with_labels(root, labels, lambda: _load_texts(root / "test.texts.json"))
    texts, names = _first_ones(*read_texts(_text_file(root)), path)
    numbers = {name: number_of(root, name, tuple(set(names)), labels) for name in set(names)}
    return texts, {LABEL: np.array([numbers[name] for name in names], np.int64)}


def name_labelled_texts(path: PathLike) -> List[str]:
    """The file and line of each of ``load_labelled_texts``, in its order; none of a data folder: it has no lines.

    Raises:
        InputError: as ``text_files.read_texts``.
    """
    root = Path(path)
    if (root / DATA_HEADER).is_file():
        return []
    file = _text_file(root)
    first: Dict[str, str] = {}
    for row in read_lines(file):
        first.setdefault(distinct(row.text), f"{file}, line {row.line}")
    return list(first.values())


def load_prepared(root: Path, labels: Sequence[str], load: Callable[[], T], targets: str) -> Tuple[T, Array]:
    """The test split of the data folder ``root``: what ``load`` gives, and the array of the file ``targets``.

    Raises:
        InputError: it is damaged, or of other classes than ``labels``.
    """
    try:
        meta = from_json(read_file(root / DATA_HEADER, MAX_HEADER_BYTES))
        if not isinstance(meta, dict):
            raise TypeError(f"{DATA_HEADER} holds no table")
        classes = tuple(meta["classes"])
        samples = load()
        values = load_npy(root / f"test.{targets}.npy")
    except (OSError, ValueError, KeyError, TypeError, EOFError, TooLarge) as e:
        raise InputError(
            f"{root}: not a readable data folder ({type(e).__name__}: {said(e)}); make it again, or give another"
        ) from e
    if classes != tuple(labels):
        raise InputError(f"{root}: its classes are {few(classes)}; the package's are {few(labels)}")
    return samples, values


def _with_labels(root: Path, labels: Sequence[str], load: Callable[[], T]) -> Tuple[T, Arrays]:
    samples, numbers = load_prepared(root, labels, load, "labels")
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(f"{root}: the labels are {numbers.dtype}{list(numbers.shape)}; must be whole numbers [N]")
    return samples, {LABEL: numbers}


def _first_ones(texts: List[str], names: List[str], path: PathLike) -> Tuple[List[str], List[str]]:
    """Each text once, as in training: its copies would count it several times."""
    first: Dict[str, int] = {}
    for i, text in enumerate(texts):
        first.setdefault(distinct(text), i)
    if len(first) < len(texts):
        _log.warning("%s: %d texts come twice and were left out", path, len(texts) - len(first))
    return [texts[i] for i in first.values()], [names[i] for i in first.values()]


def _text_file(path: Path) -> Path:
    """The test split's file in the folder ``path``, in any case, or ``path`` itself."""
    if not path.is_dir():
        return path
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in LABELLED_TEXTS and p.stem.lower() == "test")
    if len(files) > 1:
        raise InputError(f"{path}: has {' and '.join(p.name for p in files)}; one of them must be the test split")
    return files[0] if files else path


def _load_texts(path: Path) -> List[str]:
    texts = from_json(read_file(path, MAX_HEADER_BYTES))
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{path.name} holds no list of texts")
    return texts


def load_npy(path: Path) -> Array:
    """The array in the file ``path``.

    Raises:
        OSError, ValueError, EOFError: it cannot be read, or holds objects.
    """
    with open_file(path) as f:
        array: Array = np.load(f, allow_pickle=False)
    return array
