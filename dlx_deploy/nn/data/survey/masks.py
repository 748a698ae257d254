"""A survey of images with masks: every file is opened; what share of the pixels each class has."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import SPLITS
from dlx_deploy.nn.data.groups import numbered_groups
from dlx_deploy.nn.data.imagefolder import decode_all
from dlx_deploy.nn.data.mask_listing import list_masks, named_classes
from dlx_deploy.nn.data.mask_rows import mask_samples
from dlx_deploy.nn.data.masks import MaskTargets
from dlx_deploy.nn.data.survey.alike import Place, compare
from dlx_deploy.nn.data.survey.drawn import Drawn, Samples, draw, examples, tested_slices
from dlx_deploy.nn.data.survey.findings import Finding, Survey, Surveyed, found, in_order
from dlx_deploy.nn.data.survey.images import groups_in, look_into, spreads_of, tallies_of
from dlx_deploy.nn.data.survey.oddities import odd_files, unreadable
from dlx_deploy.nn.data.survey.pictures import SIDE
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import Framing, pillow
from dlx_deploy.runtime.tasks.images import open_picture
from dlx_deploy.runtime.tasks.mask_files import IGNORED, OVERLAY, image_size, load_pair, palette
from dlx_deploy.runtime.tasks.mask_folders import Pairs

__all__ = ["survey_masks"]

_VALUES = 256
_RARE = 0.001
"""A class of fewer of the pixels is hardly learnt by the mean over pixels."""


def survey_masks(config: Data, seed: int, progress: Progress) -> Surveyed:
    """What there is to know of the images and masks that ``config`` names; masks are read at their own size.

    Raises:
        DataError: they cannot be listed, or their list cannot be used. EnvironmentMissing: there is no Pillow.
    """
    root = Path(config.path)
    pairs, _ = list_masks(root)
    samples = mask_samples(config, pairs)
    counts, broken = _count(pairs, config.ignore_index, progress)
    classes = named_classes(root) or tuple(map(str, range(_largest(counts) + 1)))
    shown = {split: [frozenset(np.flatnonzero(row).tolist()) for row in of] for split, of in counts.items()}

    def load(split: str, position: int) -> NDArray[np.uint8]:
        return _mask(pairs[split][position], config.ignore_index)

    targets = MaskTargets(classes, (0, 0), shown, load, config.allow_missing_classes, config.ignore_index)
    groups = numbered_groups({split: [sample.group for sample in of] for split, of in samples.items()})
    source = Samples("images", "folder", classes, targets, groups)
    drawn = draw(config, source, seed)
    names = {split: [sample.name for sample in of] for split, of in samples.items()}
    places = [
        Place(names[part.origin][int(i)], "", split, part.origin)
        for split, part in drawn.parts.items()
        for i in part.positions
    ]
    looked = look_into(places, root, config, progress)
    copies, near, alike = compare(looked.places, looked.looks, config, progress)
    shares = _shares(drawn, counts, len(classes))
    findings = [drawn.refusal] if drawn.refusal else []
    findings += [
        *broken,
        *unreadable(looked.places, looked.reasons, config),
        *alike,
        *_rare(shares, classes, config.ignore_index),
    ]
    findings += odd_files(looked.places, looked.looks, config)
    survey = Survey(
        kind=config.kind,
        path=config.path,
        root=str(root),
        noun="images",
        classes=classes,
        splits=drawn.splits,
        spreads=spreads_of(looked.looks),
        tallies=tallies_of(looked.looks) | groups_in(samples, drawn),
        shares=shares,
        findings=in_order(findings),
        copies=copies,
        near=near,
        examples=examples(drawn, source, names),
        slices=tested_slices(config, drawn, {split: [s.slices for s in of] for split, of in samples.items()}),
    )
    by_name = {name: pair for split, of in names.items() for name, pair in zip(of, pairs[split], strict=True)}
    return Surveyed(survey, lambda name: _thumbnail(by_name[name], config.ignore_index) if name in by_name else None)


def _count(
    pairs: Mapping[str, Pairs], ignore: int, progress: Progress
) -> tuple[dict[str, NDArray[np.int64]], list[Finding]]:
    """Split → int64[N, 256], the pixels of each value in each mask; and the masks that cannot be used."""
    counts, findings = {}, []
    for split, of in pairs.items():
        rows = np.zeros((len(of), _VALUES), np.int64)

        def look(position: int, of: Pairs = of, rows: NDArray[np.int64] = rows) -> None:
            mask = _mask(of[position], ignore)
            rows[position] = np.bincount(mask[mask != IGNORED], minlength=_VALUES)

        failures = decode_all(len(of), look, "masks", progress, spare=1.0)
        counts[split] = rows
        if failures:
            text = f"masks of {split} cannot be used: a build stops"
            findings.append(found("unreadable_masks", "refused", text, [str(e) for e in failures.values()], len(of)))
    return counts, findings


def _mask(pair: tuple[Path, Path], ignore: int) -> NDArray[np.uint8]:
    """The mask of a pair at its own size, uint8[H, W]."""
    (width, height), _ = image_size(pair[0])
    return load_pair(pair, Framing(height, width, 3), _VALUES, ignore)


def _largest(counts: Mapping[str, NDArray[np.int64]]) -> int:
    return max((int(np.flatnonzero(of.sum(axis=0)).max(initial=0)) for of in counts.values()), default=0)


def _shares(drawn: Drawn, counts: Mapping[str, NDArray[np.int64]], classes: int) -> dict[str, tuple[float, ...]]:
    """Split → the share of pixels of each class, of those that count."""
    shares = {}
    for split, part in sorted(drawn.parts.items(), key=lambda item: SPLITS.index(item[0])):
        pixels = counts[part.origin][part.positions].sum(axis=0)
        shares[split] = tuple((pixels[:classes] / max(int(pixels.sum()), 1)).tolist())
    return shares


def _rare(shares: Mapping[str, tuple[float, ...]], classes: tuple[str, ...], ignore: int) -> list[Finding]:
    of = shares.get("train", ())
    none = [classes[i] for i, share in enumerate(of) if not share and i != ignore]
    rare = [classes[i] for i, share in enumerate(of) if 0 < share < _RARE]
    text = f"classes have less than {100 * _RARE:g} % of the training pixels: they are hardly learnt"
    findings = [found("rare", "warning", text, rare, len(classes))] if rare else []
    text = "classes have no training pixel, so no network can learn them: a build stops"
    return [*findings, found("unseen", "refused", text, none, len(classes))] if none else findings


def _thumbnail(pair: tuple[Path, Path], ignore: int) -> bytes | None:
    """A small JPEG of an image with its mask laid over it."""
    try:
        picture, mask = np.asarray(open_picture(pair[0], 3)), _mask(pair, ignore)
    except (InputError, DataError):
        return None
    over = np.where((mask == IGNORED)[..., None], picture, picture * (1 - OVERLAY) + palette()[mask] * OVERLAY)
    image = pillow().fromarray(over.round().astype(np.uint8))
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()
