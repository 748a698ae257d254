"""Texts on their way into the artifact: from CSV or JSONL files or docstrings, tokenized, without duplicates."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.copies import ORDER, Row, digests, find_copies
from dlx_deploy.nn.data.dataset import Dataset, Labels
from dlx_deploy.nn.data.docstrings import load_docstrings
from dlx_deploy.nn.data.group_names import refuse_alike_groups, refuse_shared_groups
from dlx_deploy.nn.data.groups import numbered_groups
from dlx_deploy.nn.data.headers import TextHeader
from dlx_deploy.nn.data.listing import left_out_tables, require_classes, split_of, text_names
from dlx_deploy.nn.data.splits import Indices, Part, without
from dlx_deploy.nn.data.targets import ClassTargets, SampleTargets
from dlx_deploy.nn.data.tokenizing import Kind, encode_all, load_tokenizer, pad_id, train_tokenizer
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.labels import class_order, same_but_for_writing
from dlx_deploy.runtime.tasks.text_files import TextTable, distinct, read_table

__all__ = ["Tables", "TextSource", "text_source", "text_tables", "texts_of", "tokenizer_of"]

log = logging.getLogger(__name__)

Tables = Mapping[str, TextTable]
"""Split → its texts, their labels and groups."""


@dataclass(frozen=True)
class TextSource:
    """Labelled texts by the split that they come in; ``make_header``: what ``dataset.json`` is made by. ``groups``:
    split → int64[N], where there are some; splits that are drawn share none. ``slices``: split → what each text has
    in the columns of ``data.slices``."""

    noun: ClassVar[str] = "texts"
    place: ClassVar[str] = "file"

    classes: tuple[str, ...]
    targets: SampleTargets
    texts: Mapping[str, Sequence[str]]
    config: Data
    counts: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Labels] = field(default_factory=dict)
    make_header: Callable[..., TextHeader] = TextHeader
    slices: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Those of the targets."""
        return self.targets.strata

    def lost(self, part: Part) -> list[int]:
        """Those of the targets."""
        return self.targets.lost(part)

    def write(self, out: Path, name: str, part: Part) -> Part:
        """Write texts and tokens; the tokenizer is trained on the training split, which comes first."""
        texts = [self.texts[part.origin][i] for i in part.positions]
        if name == "train":
            (out / "tokenizer.json").write_bytes(self._tokenizer(texts))
        self._save(out, name, texts, encode_all(load_tokenizer(out / "tokenizer.json"), texts, *self._limits, name))
        return part

    def separate(self, out: Path, parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[str, float]]:
        """The written ``parts`` without texts that are the same tokens as one of a split that judges.

        Such texts are not equal (those are gone before), but the tokenizer lower-cases them, say, or cuts them off.

        Raises:
            DataError: a class of the training split, or a whole split, has nothing else.
        """

        def target(row: Row) -> Hashable:
            part = parts[row[0]]
            return self.targets.one(part.origin, int(part.positions[row[1]]))

        labels = {name: self.strata[part.origin][part.positions] for name, part in parts.items()}
        copies = find_copies({name: digests(_tokens(out, name)) for name in ORDER if name in parts}, target)
        result = dict(parts)
        for split in ORDER:
            rows = np.array([row for (name, row), _ in copies.across if name == split], np.int64)
            if len(rows):
                keep = without(len(labels[split]), rows)
                self._refuse_alike(split, labels[split], keep)
                result[split] = Part(parts[split].origin, parts[split].positions[keep])
                texts = [self.texts[parts[split].origin][i] for i in result[split].positions]
                self._save(out, split, texts, _tokens(out, split)[keep])
                log.warning("%d texts of the %s split are the same tokens as others: left out", len(rows), split)
        count = len(copies.across)
        return result, {"copies_left_out": self.counts.get("copies_left_out", 0.0) + count} if count else {}

    def _refuse_alike(self, split: str, labels: Labels, keep: Indices) -> None:
        gone = np.setdiff1d(labels, labels[keep])
        if len(gone) and (split == "train" or not len(keep)):
            raise DataError(
                f"the {split} split: class {self.classes[gone[0]]!r} has no text of its own ({len(gone)} such): all "
                "are the same tokens as texts of the test or validation split; add others, or raise data.max_length"
            )

    def write_targets(self, out: Path, name: str, part: Part) -> None:
        """The targets of one split."""
        self.targets.write(out, name, part)

    def draw(self, out: Path, drawn: Indices) -> None:
        """The texts of the training split at ``drawn``, as those of calibration."""
        texts = json.loads((out / "train.texts.json").read_text(encoding="utf-8"))
        tokens = np.load(out / "train.tokens.npy", mmap_mode="r", allow_pickle=False)
        self._save(out, "calibration", [texts[i] for i in drawn], tokens[drawn])

    def header(self, out: Path, counts: Mapping[str, int]) -> TextHeader:
        """``dataset.json``, once the tokenizer is there."""
        tokenizer = load_tokenizer(out / "tokenizer.json")
        return self.make_header(
            classes=list(self.classes),
            vocabulary=tokenizer.get_vocab_size(),
            max_length=self.config.max_length,
            pad_id=pad_id(tokenizer) or 0,
            truncate=self.config.truncate,
            splits=dict(counts),
        )

    @cached_property
    def _limits(self) -> tuple[int, bool]:
        return self.config.max_length, self.config.truncate

    def _tokenizer(self, texts: Sequence[str]) -> bytes:
        kind = self.config.tokenizer
        if kind.endswith(".json"):
            load_tokenizer(Path(kind))
            return Path(kind).read_bytes()
        return train_tokenizer(texts, cast(Kind, kind), self.config.vocabulary)

    @staticmethod
    def _save(out: Path, name: str, texts: Sequence[str], tokens: Any) -> None:
        np.save(out / f"{name}.tokens.npy", tokens, allow_pickle=False)
        (out / f"{name}.texts.json").write_text(json.dumps(list(texts), ensure_ascii=False), encoding="utf-8")


def texts_of(data: Dataset, name: str) -> list[str]:
    """The texts of a split, in the order of its tokens.

    Raises:
        DataError: they are missing or damaged.
    """
    path = data.folder / f"{name}.texts.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError) as e:
        raise DataError(f"{path}: not a list of texts ({e}); prepare the data again") from e


def tokenizer_of(data: Dataset) -> Path:
    """The ``tokenizer.json`` that made the tokens."""
    return data.folder / "tokenizer.json"


def _tokens(out: Path, split: str) -> NDArray[np.int32]:
    tokens: NDArray[np.int32] = np.load(out / f"{split}.tokens.npy", allow_pickle=False)
    return tokens


def text_source(config: Data) -> TextSource:
    """The texts that ``config`` names, none twice: a text in the test split is in no other.

    Raises:
        DataError: no training file, a broken line, one class only, a label that training has not, or a class whose
            texts are all duplicates.
    """
    if config.kind == "docstrings":
        return _source({"train": _table(*load_docstrings())}, {"train": "docstrings"}, config)
    if not config.path:
        raise DataError("data.path is empty; data.kind 'text' needs a folder with train.csv or train.jsonl, or a file")
    path = Path(config.path)
    files = _files(path)
    if "train" not in files:
        raise DataError(f"data.path: {path} holds no train.csv or train.jsonl with text and label")
    tables = text_tables(path, config.slices)
    others = [] if path.is_file() else left_out_tables(path, [file.name for file in files.values()])
    source = _source(tables, {split: str(file) for split, file in files.items()}, config)
    return replace(source, counts={**source.counts, "files_left_out": float(len(others))})


def text_tables(path: Path, slices: Sequence[str] = ()) -> Tables:
    """The rows of each split's file in the folder ``path``, or of the file ``path``.

    Only the split that is judged has ``slices``: ``test``, or ``train`` where that is drawn from it.

    Raises:
        DataError: a file cannot be read, or has a broken line.
    """
    try:
        files = _files(path)
        judged = "test" if "test" in files else "train"
        return {split: read_table(file, slices if split == judged else ()) for split, file in files.items()}
    except InputError as e:
        raise DataError(str(e)) from e


def _files(path: Path) -> dict[str, Path]:
    """Split → its file."""
    return {"train": path} if path.is_file() else {split_of(n) or n: path / n for n in text_names(path)}


def _source(tables: Tables, names: Mapping[str, str], config: Data) -> TextSource:
    classes = tuple(class_order(tables["train"].labels))
    if len(classes) < 2:
        raise DataError(f"{names['train']}: one class only ({classes[0]!r}); a classifier needs at least 2")
    number = {name: i for i, name in enumerate(classes)}
    texts: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    slices: dict[str, list[tuple[str, ...]]] = {}
    labels: dict[str, Labels] = {}
    taken: dict[str, str] = {}
    counts = {"copies_left_out": 0.0, "contradictory_texts": 0.0}
    for split in ("test", "validation", "train"):  # what is tested on is not trained on
        if split in tables:
            table = tables[split]
            columns = [value for row in table.slices for value in row]
            _refuse_broken([*table.texts, *table.labels, *table.groups, *columns], names[split])
            _refuse_unseen(table.labels, classes, names[split])
            rows, contradictory = _first_ones(table.texts, table.labels, taken)
            texts[split] = [table.texts[i] for i in rows]
            groups[split] = [table.groups[i] for i in rows]
            slices[split] = [table.slices[i] for i in rows] if table.slices else []
            labels[split] = np.array([number[table.labels[i]] for i in rows], np.int64)
            counts["copies_left_out"] += _say_copies(names[split], len(table.texts) - len(rows), contradictory)
            counts["contradictory_texts"] += contradictory
    _refuse_gone(labels["train"], classes, names["train"])
    for split in sorted(set(labels) - {"train"}):
        missing = [name for i, name in enumerate(classes) if i not in labels[split]]
        require_classes(missing, names[split], config.allow_missing_classes)
    refuse_alike_groups((group for of in groups.values() for group in of), names["train"])
    refuse_shared_groups(groups, names, config)
    counted = counts if config.kind == "text" else {}
    source = TextSource(classes, ClassTargets(labels), texts, config, counted, numbered_groups(groups))
    return replace(source, slices=slices)


def _table(texts: list[str], labels: list[str]) -> TextTable:
    return TextTable(texts, labels, [""] * len(texts))


def _first_ones(texts: Sequence[str], labels: Sequence[str], taken: dict[str, str]) -> tuple[list[int], int]:
    """The positions of texts that are not in ``taken`` (text → label), to which they are added; and how many of the
    others are there under another label."""
    rows, contradictory = [], 0
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        before = taken.setdefault(key := distinct(text), "")
        if before:
            contradictory += before != label
        else:
            taken[key] = label
            rows.append(i)
    return rows, contradictory


def _say_copies(name: str, count: int, contradictory: int) -> int:
    if count:
        log.warning("%s: %d texts come twice and were left out", name, count)
    if contradictory:
        log.warning("%s: %d of them had another label than the text that was kept: correct them", name, contradictory)
    return count


def _refuse_broken(texts: Sequence[str], name: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:  # JSON can write \ud83d without its other half
            raise DataError(
                f"{name}: {text[:60]!a} holds {text[e.start]!a}, half of a character; write both halves"
            ) from e


def _refuse_gone(labels: Labels, classes: Sequence[str], name: str) -> None:
    gone = [c for i, c in enumerate(classes) if i not in labels]
    if gone:
        raise DataError(
            f"{name}: class {gone[0]!r} has no text of its own ({len(gone)} such): all are in the test or validation "
            "texts, or come earlier with another label; add other texts of it"
        )


def _refuse_unseen(labels: Sequence[str], classes: Sequence[str], name: str) -> None:
    unseen = sorted(set(labels) - set(classes))
    if unseen:
        near = same_but_for_writing(unseen[0], classes)
        hint = f"; {near!r} differs in its writing only: make them one" if near else ""
        raise DataError(
            f"{name}: label {unseen[0]!r} is not in the training texts ({len(unseen)} such); they have: "
            f"{', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}{hint}"
        )
