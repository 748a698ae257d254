"""Pictures that are in several splits, the same or nearly: what a network is judged by must be new to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dlx_deploy.config import Data
from dlx_deploy.nn.data.survey.findings import Finding, Pair, Severity, found
from dlx_deploy.nn.data.survey.pictures import Look
from dlx_deploy.nn.data.survey.sketches import Sketches, near_pairs
from dlx_deploy.progress import Progress

__all__ = ["Place", "compare"]

_ORDER = ("test", "validation")
"""Whose pictures are looked for in those after them, and in training."""
_SEEN = {"test": ("validation", "train", "calibration"), "validation": ("train", "calibration")}


class Place(NamedTuple):
    """A sample: what it is called, its class, the split that it would be in, and the one that it comes in."""

    name: str
    label: str
    split: str
    origin: str


def compare(
    places: Sequence[Place], looks: Mapping[int, Look], config: Data, progress: Progress
) -> tuple[tuple[Pair, ...], tuple[Pair, ...], list[Finding]]:
    """Copies in several splits, near-copies in several splits, and what to say of them and of others."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for row, look in looks.items():
        by_digest[look.digest].append(row)
    groups = [rows for rows in by_digest.values() if len(rows) > 1]
    copies = [_pair(places, rows[0], row) for rows in groups for row in rows[1:] if _across(places, rows[0], row)]
    known = {row for rows in groups for row in rows}
    near = _near(places, {row: look for row, look in looks.items() if row not in known}, progress)
    findings = [*_of_copies(places, groups, config), *_of_near(near, len(places))]
    return tuple(copies), tuple(near), findings


def _near(places: Sequence[Place], looks: Mapping[int, Look], progress: Progress) -> list[Pair]:
    pairs: list[Pair] = []
    rows = {split: [row for row in looks if places[row].split == split] for split in ("train", "calibration", *_ORDER)}
    sketches = {split: Sketches.of([looks[row].sketch for row in of]) for split, of in rows.items()}
    for split in _ORDER:
        nearest: dict[int, Pair] = {}
        for other in _SEEN[split]:
            for row, at, distance in near_pairs(sketches[split], sketches[other], progress):
                pair = _pair(places, rows[other][at], rows[split][row], distance)
                if row not in nearest or distance < nearest[row].distance:
                    nearest[row] = pair
        pairs += nearest.values()
    return sorted(pairs, key=lambda pair: (pair.distance, pair.second))


def _of_copies(places: Sequence[Place], groups: Sequence[Sequence[int]], config: Data) -> list[Finding]:
    """Copies by what a build makes of them."""
    kinds: dict[tuple[str, Severity], list[str]] = defaultdict(list)
    for rows in groups:
        if len({places[row].label for row in rows if places[row].label}) > 1:
            kinds["contradictory", "warning"] += [places[row].name for row in rows]
        for row in rows[1:]:
            kinds[_kind(places, rows[0], row, config)].append(places[row].name)
    return [found(kind, severity, _SAID[kind], names, len(places)) for (kind, severity), names in kinds.items()]


_SAID = {
    "contradictory": "images are there under several classes, pixel for pixel: no network can learn both",
    "leaked": "images are in several of the splits that are given, pixel for pixel: what a network is judged by must "
    "be new to it; remove one of each, or set data.allow_leakage = true",
    "allowed_leak": "images are in several splits, and data.allow_leakage keeps them: figures will be too good",
    "copies": "images of splits that are drawn are copies of others: a build leaves them out",
    "repeated": "images come more than once in their split: each counts as often",
}


def _kind(places: Sequence[Place], first: int, row: int, config: Data) -> tuple[str, Severity]:
    if not _across(places, first, row):
        return "repeated", "warning" if places[row].split == "test" else "note"
    if config.allow_leakage:
        return "allowed_leak", "warning"
    return ("leaked", "refused") if places[first].origin != places[row].origin else ("copies", "note")


def _of_near(pairs: Sequence[Pair], total: int) -> list[Finding]:
    if not pairs:
        return []
    text = "images nearly are images of a split that is trained or chosen on: figures may be too good; see the pairs"
    findings = [found("near_copies", "warning", text, [pair.second for pair in pairs], total)]
    other = [pair.second for pair in pairs if pair.first_class and pair.first_class != pair.second_class]
    if other:
        text = "of these pairs are of two classes: one of the labels is wrong, or the classes differ in details"
        findings.append(found("near_contradictory", "warning", text, other, len(pairs)))
    return findings


def _across(places: Sequence[Place], first: int, row: int) -> bool:
    """Whether two samples are of different splits; those of train may be in calibration."""
    splits = {places[first].split, places[row].split}
    return len(splits) > 1 and splits != {"train", "calibration"}


def _pair(places: Sequence[Place], first: int, second: int, distance: int | None = None) -> Pair:
    """``distance``: of those that are nearly the same."""
    one, two = places[first], places[second]
    return Pair(one.name, one.split, one.label, two.name, two.split, two.label, distance or 0, distance is None)
