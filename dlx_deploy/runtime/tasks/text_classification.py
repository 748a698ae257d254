"""sequence-classification: texts in, one class of several out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Mapping, Sequence, Tuple

from ..files import PathLike
from .arrays import Arrays
from .classes import Classes, read_labels
from .task import Task
from .text_inputs import TextInputs, Tokens, read_text_inputs

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["NAME", "open_task", "text_classification"]

NAME = "sequence-classification"


def text_classification(
    tokens: Tokens, tokenizer: bytes, labels: Sequence[str], golden_texts: Sequence[str] = ()
) -> Task:
    """The task of a package that reads texts by ``tokenizer`` (a ``tokenizer.json``) and tells ``labels`` apart.

    ``golden_texts`` are the texts behind the package's golden inputs, in their order.
    """
    return _task(TextInputs(tokens, tokenizer, tuple(golden_texts)), labels)


def open_task(field: Fields) -> Task:
    """The task as ``package.json`` and the package's members have it.

    Raises:
        PackageError: a field or a member is missing or of the wrong kind.
    """
    return _task(read_text_inputs(field), read_labels(field))


def _task(inputs: TextInputs, labels: Sequence[str]) -> Task:
    load = partial(_load_labelled, labels=tuple(labels))
    return Task(NAME, inputs, Classes(tuple(labels)), load, names=_name_labelled, columns=_columns_of)


def _load_labelled(path: PathLike, labels: Sequence[str]) -> Tuple[object, Arrays]:
    from .labelled import load_labelled_texts  # what predicts reads no labels

    return load_labelled_texts(path, labels)


def _name_labelled(path: PathLike) -> Sequence[str]:
    from .labelled import name_labelled_texts

    return name_labelled_texts(path)


def _columns_of(path: PathLike, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    from .labelled import columns_of_texts

    return columns_of_texts(path, names)
