"""A survey of labelled texts: how many, how long, and which come several times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Labels
from dlx_deploy.nn.data.drawing import Drawable
from dlx_deploy.nn.data.survey.balance import balance
from dlx_deploy.nn.data.survey.drawn import Samples, draw, examples, tested_slices
from dlx_deploy.nn.data.survey.findings import Finding, Severity, Spread, Survey, Surveyed, found, in_order, spread
from dlx_deploy.nn.data.targets import ClassTargets
from dlx_deploy.nn.data.texts import Tables, text_source, text_tables
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.tasks.labels import class_order
from dlx_deploy.runtime.tasks.text_files import TextTable, distinct

__all__ = ["survey_texts"]

_SHOWN = 80  # characters of a text in a list
_ORDER = ("test", "validation", "train")


def survey_texts(config: Data, seed: int, progress: Progress) -> Surveyed:
    """What there is to know of the labelled texts that ``config`` names.

    Raises:
        DataError: a file cannot be read.
    """
    tables = text_tables(Path(config.path))
    findings = _copies(tables)
    source: Drawable
    slices: Mapping[str, Sequence[Sequence[str]]] = {}
    try:
        kept = text_source(config)
        source, texts, slices = kept, kept.texts, kept.slices
    except DataError as e:
        findings.append(Finding("layout", "refused", str(e)))
        source, texts = _as_given(tables), {split: of.texts for split, of in tables.items()}
    drawn = draw(config, source, seed)
    if drawn.refusal and not any(f.severity == "refused" for f in findings):
        findings.append(drawn.refusal)
    findings += balance(drawn.splits, source.classes, "texts")
    survey = Survey(
        kind=config.kind,
        path=config.path,
        root="",
        noun="texts",
        classes=source.classes,
        splits=drawn.splits,
        spreads=_lengths([text for of in texts.values() for text in of]),
        findings=in_order(findings),
        examples=examples(drawn, source, texts),
        slices=tested_slices(config, drawn, slices),
    )
    return Surveyed(survey)


def _lengths(texts: Sequence[str]) -> tuple[Spread, ...]:
    if not texts:
        return ()
    words, characters = [len(text.split()) for text in texts], list(map(len, texts))
    return spread("length", "characters", characters), spread("length", "words", words)


def _copies(tables: Tables) -> list[Finding]:
    """Texts that come several times: a build keeps the first one, in the order of the splits that judge."""
    first: dict[str, tuple[str, str]] = {}
    kinds: dict[tuple[str, Severity], list[str]] = defaultdict(list)
    for split in _ORDER:
        table = tables.get(split, TextTable([], [], []))
        for text, label in zip(table.texts, table.labels, strict=True):
            key = distinct(text)
            if key not in first:
                first[key] = (split, label)
                continue
            where, meant = first[key]
            kinds[("copies", "warning") if where != split else ("repeated", "note")].append(text[:_SHOWN])
            if meant != label:
                kinds["contradictory", "warning"].append(text[:_SHOWN])
    total = sum(len(of.texts) for of in tables.values())
    return [found(kind, severity, _SAID[kind], names, total) for (kind, severity), names in kinds.items()]


_SAID = {
    "copies": "texts are in several splits, but for spaces: they stay in that which judges and are left out elsewhere",
    "repeated": "texts come before in their split: they are left out",
    "contradictory": "of these copies have another label than the text that is kept: correct them",
}


def _as_given(tables: Tables) -> Samples:
    """The rows of the files as they are, where a build would refuse them."""
    classes = tuple(class_order(label for of in tables.values() for label in of.labels))
    number = {name: i for i, name in enumerate(classes)}
    strata: Mapping[str, Labels] = {
        split: np.array([number[label] for label in of.labels], np.int64) for split, of in tables.items()
    }
    return Samples("texts", "file", classes, ClassTargets(strata))
