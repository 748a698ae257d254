"""A survey of labelled images: every file is opened, as a build would, and compared with those of other splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.catalogue import Catalogue, Sample, open_catalogue
from dlx_deploy.nn.data.catalogue_checks import check_catalogue
from dlx_deploy.nn.data.dataset import SPLITS
from dlx_deploy.nn.data.frames import framing_of
from dlx_deploy.nn.data.numbering import class_numbers, group_numbers
from dlx_deploy.nn.data.survey.alike import Place, compare
from dlx_deploy.nn.data.survey.balance import balance
from dlx_deploy.nn.data.survey.drawn import Drawn, Samples, draw, examples, tested_slices
from dlx_deploy.nn.data.survey.findings import Finding, Spread, Survey, Surveyed, found, in_order, spread
from dlx_deploy.nn.data.survey.oddities import odd_files, unreadable
from dlx_deploy.nn.data.survey.pictures import Look, Opener, in_files, look_at_all, thumbnail
from dlx_deploy.nn.data.targets import ClassTargets
from dlx_deploy.progress import Progress

__all__ = ["Looked", "groups_in", "look_into", "spreads_of", "survey_images", "tallies_of"]


@dataclass(frozen=True)
class Looked:
    """Every image that some split would have: where it is, and what was seen of it, if it could be read."""

    places: tuple[Place, ...]
    looks: Mapping[int, Look]
    reasons: Mapping[int, str]


def survey_images(config: Data, seed: int, progress: Progress) -> Surveyed:
    """What there is to know of the labelled images that ``config`` names, in folders or in a list.

    Raises:
        DataError: they cannot even be listed. EnvironmentMissing: there is no Pillow.
    """
    catalogue = open_catalogue(config)
    findings = _refusals(catalogue, config)
    source = Samples(
        "images",
        catalogue.place,
        catalogue.classes,
        ClassTargets(class_numbers(catalogue)),
        group_numbers(catalogue),
    )
    drawn = draw(config, source, seed) if catalogue.samples else Drawn({}, ())
    if drawn.refusal and not findings:
        findings.append(drawn.refusal)
    looked = look_into(_places(catalogue, drawn), catalogue.root, config, progress, catalogue.data)
    copies, near, alike = compare(looked.places, looked.looks, config, progress)
    findings += [*unreadable(looked.places, looked.reasons, config), *odd_files(looked.places, looked.looks, config)]
    findings += [*alike, *balance(drawn.splits, catalogue.classes, "images"), *_left_out(catalogue)]
    names = {split: [sample.name for sample in of] for split, of in catalogue.samples.items()}
    survey = Survey(
        kind=config.kind,
        path=config.path,
        root=str(catalogue.root),
        noun="images",
        classes=catalogue.classes,
        splits=drawn.splits,
        spreads=spreads_of(looked.looks),
        tallies=tallies_of(looked.looks) | groups_in(catalogue.samples, drawn),
        findings=in_order(findings),
        copies=copies,
        near=near,
        examples=examples(drawn, source, names),
        slices=tested_slices(config, drawn, {split: [s.slices for s in of] for split, of in catalogue.samples.items()}),
    )
    return Surveyed(survey, lambda name: thumbnail(catalogue.root, name, catalogue.data))


def look_into(places: Sequence[Place], root: Path, config: Data, progress: Progress, data: Opener = in_files) -> Looked:
    """The files at ``places``, opened; ``data``: as ``Catalogue.data``."""
    framing = framing_of(config) if config.height else None
    looks, reasons = look_at_all(root, [place.name for place in places], framing, progress, data)
    return Looked(tuple(places), looks, reasons)


def spreads_of(looks: Mapping[int, Look]) -> tuple[Spread, ...]:
    """Widths, heights and how long pictures are for their height."""
    if not looks:
        return ()
    widths, heights = [look.width for look in looks.values()], [look.height for look in looks.values()]
    ratios = [round(w / h, 3) for w, h in zip(widths, heights, strict=True)]
    return spread("width", "px", widths), spread("height", "px", heights), spread("width / height", "", ratios)


def tallies_of(looks: Mapping[int, Look]) -> dict[str, dict[str, int]]:
    """How many pictures are of each of Pillow's modes and formats, and of the commonest sizes."""
    size = Counter(f"{look.width} x {look.height}" for look in looks.values())
    return {
        "format": dict(Counter(look.format for look in looks.values()).most_common()),
        "mode": dict(Counter(look.mode for look in looks.values()).most_common()),
        "size": dict(size.most_common(5)),
    }


def groups_in(samples: Mapping[str, Sequence[Sample]], drawn: Drawn) -> dict[str, dict[str, int]]:
    """How many groups each split has, where images are of groups; ``samples``: by the split that they come in."""
    if not any(sample.group for of in samples.values() for sample in of):
        return {}
    return {
        "groups": {
            split.name: len({samples[part.origin][int(i)].group for i in part.positions})
            for split in drawn.splits
            if (part := drawn.parts.get(split.name))
        }
    }


def _refusals(catalogue: Catalogue, config: Data) -> list[Finding]:
    """What a build would refuse before it opens a file: the first of it."""
    try:
        check_catalogue(catalogue, config)
    except DataError as e:
        return [Finding("layout", "refused", str(e))]
    return []


def _places(catalogue: Catalogue, drawn: Drawn) -> list[Place]:
    """Where each image of a split lies; files of a list that are not there are left to what refuses them."""
    return [
        Place(sample.name, sample.label, split, part.origin)
        for split, part in sorted(drawn.parts.items(), key=lambda item: SPLITS.index(item[0]))
        for sample in (catalogue.samples[part.origin][int(i)] for i in part.positions)
        if catalogue.place != "rows" or os.path.isfile(catalogue.root / sample.name)
    ]


def _left_out(catalogue: Catalogue) -> list[Finding]:
    names = catalogue.left_out
    text = "files are no images of a class (another suffix, or in no class folder) and are left out"
    total = len(names) + sum(map(len, catalogue.samples.values()))
    return [found("left_out", "warning", text, names, total)] if names else []
