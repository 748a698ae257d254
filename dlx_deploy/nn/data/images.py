"""Images on their way into the artifact: where they come from, decoded, told from their copies, measured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import digits
from dlx_deploy.nn.data.catalogue import NEEDED, open_catalogue
from dlx_deploy.nn.data.catalogue_checks import check_catalogue
from dlx_deploy.nn.data.copies import ORDER, Copies, Row, digests, find_copies
from dlx_deploy.nn.data.dataset import Images, Labels
from dlx_deploy.nn.data.frames import FRAME_KEYS, framing_of
from dlx_deploy.nn.data.headers import ImageHeader
from dlx_deploy.nn.data.imagefolder import decode_all
from dlx_deploy.nn.data.listing import warn_once
from dlx_deploy.nn.data.normalisation import normalisation_of
from dlx_deploy.nn.data.numbering import class_numbers, group_numbers
from dlx_deploy.nn.data.originals import keep_originals
from dlx_deploy.nn.data.splits import Indices, Part, without
from dlx_deploy.nn.data.targets import ClassTargets, SampleTargets
from dlx_deploy.nn.data.unread import Unread, read_left_out, write_left_out
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.files import open_file
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import load_image

__all__ = ["ImageSource", "image_source"]


@dataclass(frozen=True)
class ImageSource:
    """Labelled images not yet decoded: ``fill(split, positions, into)`` writes pixels, ``name`` says whose.

    ``fill`` may give back which rows of ``into`` could not be read: they are left out, counted and listed.
    ``framing``: how pictures become pixels, where they are files. ``make_header``: what ``dataset.json`` is made by, of
    what it says of images. ``groups``: split → int64[N]; splits that are drawn share none.
    ``slices``: split → what each image has in the columns of ``data.slices``.
    ``read``: opens an image as it came.
    """

    noun: ClassVar[str] = "images"
    place: ClassVar[str] = "folder"

    classes: tuple[str, ...]
    targets: SampleTargets
    shape: tuple[int, int, int]  # height, width, channels
    fill: Callable[[str, Indices, Images], Unread | None]
    name: Callable[[str, int], str]
    config: Data
    framing: Framing | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    make_header: Callable[..., ImageHeader] = ImageHeader
    groups: Mapping[str, Labels] = field(default_factory=dict)
    slices: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    read: Callable[[str, int], BinaryIO] | None = None

    def __post_init__(self) -> None:
        if self.framing is None and any(getattr(self.config, key) for key in FRAME_KEYS):
            raise DataError(
                f"data.kind is {self.config.kind!r}, whose images are no files; {', '.join(FRAME_KEYS)} say nothing of "
                "them: leave them out"
            )

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Those of the targets."""
        return self.targets.strata

    def lost(self, part: Part) -> list[int]:
        """Those of the targets."""
        return self.targets.lost(part)

    def write(self, out: Path, name: str, part: Part) -> Part:
        """Decode straight into the file, so that no split needs to fit in memory twice.

        Raises:
            DataError: more images cannot be read than may be, or all of a class to train on.
        """
        path = out / f"{name}.images.npy"
        images: Images = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.uint8, shape=(len(part.positions), *self.shape)
        )
        unread = self.fill(part.origin, part.positions, images) if len(part.positions) else None
        images.flush()  # type: ignore[attr-defined]
        if unread:
            write_left_out(out, name, unread)
            rows = np.array(sorted(unread), np.int64)
            keep = without(len(part.positions), rows)
            _refuse_gone(self, name, part, keep, "cannot be read")
            _keep(out, name, keep)
            part = Part(part.origin, part.positions[keep])
        if name == "validation" and self.config.originals and self.read:
            keep_originals(out, self.config.originals, part.positions, partial(self.read, part.origin))
        return part

    def separate(self, out: Path, parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[str, float]]:
        """The ``parts`` that are written, none with an image of another; and what there is to count.

        A copy that a draw put into another split is left out there; one in folders that the user made is refused.

        Raises:
            DataError: there are such copies, or a split or a class has nothing else.
        """

        def target(row: Row) -> Hashable:
            part = parts[row[0]]
            return self.targets.one(part.origin, int(part.positions[row[1]]))

        copies = find_copies({name: digests(_read(out, name)) for name in ORDER if name in parts}, target)
        counts = {
            "contradictory_images": copies.contradictory,
            "repeated_test_images": copies.repeated,
            "bad_images": len(read_left_out(out)),
        }
        given = [pair for pair in copies.across if parts[pair[0][0]].origin != parts[pair[1][0]].origin]
        allowed = self.config.allow_leakage
        if given and not allowed:
            raise DataError(self._leak(given, parts))
        for name, number in counts.items():
            if number:
                warn_once(_COUNTED[name].format(number, self.config.path or self.config.kind))
        if copies.across and allowed:
            warn_once(f"{len(copies.across)} images are in several splits; data.allow_leakage is true, so they stay")
            return dict(parts), _some({**counts, "leaked_images": len(copies.across)})
        separated = self._without(out, parts, copies)
        return separated, _some({**counts, "copies_left_out": len(copies.across)})

    def _without(self, out: Path, parts: Mapping[str, Part], copies: Copies) -> dict[str, Part]:
        """``parts``, written again without the copies."""
        result = dict(parts)
        for split in ORDER:
            rows = np.array([row for (name, row), _ in copies.across if name == split], np.int64)
            if len(rows):
                part = parts[split]
                keep = without(len(part.positions), rows)
                _refuse_gone(self, split, part, keep, "are copies of images that the test or validation split holds")
                _keep(out, split, keep)
                result[split] = Part(part.origin, part.positions[keep])
                warn_once(f"{len(rows)} images of the {split} split are copies of images in another: they are left out")
        return result

    def _leak(self, pairs: Sequence[tuple[Row, Row]], parts: Mapping[str, Part]) -> str:
        (split, row), (other, at) = pairs[0]
        names = [self.name(parts[s].origin, int(parts[s].positions[i])) for s, i in ((split, row), (other, at))]
        return (
            f"{len(pairs)} images are in several splits, pixel for pixel; the first: {names[0]} ({split}) is "
            f"{names[1]} ({other}); what a network is judged by must be new to it: remove one of each, or set "
            "data.allow_leakage = true"
        )

    def write_targets(self, out: Path, name: str, part: Part) -> None:
        """The targets of one split."""
        self.targets.write(out, name, part)

    def draw(self, out: Path, drawn: Indices) -> None:
        """The images of the training split at ``drawn``, as those of calibration."""
        np.save(out / "calibration.images.npy", _train(out)[drawn], allow_pickle=False)

    def header(self, out: Path, counts: Mapping[str, int]) -> ImageHeader:
        """``dataset.json``, once the splits are written."""
        height, width, channels = self.shape
        seen = "train" if counts["train"] else "calibration"
        mean, std = normalisation_of(self.config, _read(out, seen))
        return self.make_header(
            classes=list(self.classes),
            height=height,
            width=width,
            channels=channels,
            mean=mean,
            std=std,
            splits=dict(counts),
            frame=None if self.framing is None or self.framing.plain else self.framing,
        )


def image_source(config: Data, progress: Progress) -> ImageSource:
    """The images that ``config`` names.

    Raises:
        DataError: their folders or sizes cannot be used. EnvironmentMissing: a library is not installed.
    """
    return _digits(config) if config.kind == "digits" else _laid_out(config, progress)


def _digits(config: Data) -> ImageSource:
    for key, value in (("height", config.height), ("width", config.width)):
        if value not in (0, digits.SIDE):
            raise DataError(f"data.{key} is {value}; the digits are {digits.SIDE} x {digits.SIDE}: leave it out")
    channels = config.channels or 1
    images, labels = digits.load_digits(channels)

    def fill(split: str, positions: Indices, into: Images) -> None:
        into[:] = images[positions]

    shape = (digits.SIDE, digits.SIDE, channels)
    return ImageSource(
        digits.CLASSES, ClassTargets({"train": labels}), shape, fill, lambda split, i: f"digit {i}", config
    )


def _laid_out(config: Data, progress: Progress) -> ImageSource:
    """Images in folders, or of a list."""
    if not config.path:
        raise DataError(f"data.path is empty; data.kind {config.kind!r} needs {NEEDED[config.kind]}")
    if not config.height:
        raise DataError(f"data.height is 0; data.kind {config.kind!r} needs the height in pixels to resize to, e.g. 32")
    framing = framing_of(config)
    catalogue = open_catalogue(config)
    check_catalogue(catalogue, config)

    def path(split: str, position: int) -> Path:
        return catalogue.root / catalogue.samples[split][position].name

    def fill(split: str, positions: Indices, into: Images) -> Unread:
        samples = catalogue.samples[split]
        order = np.argsort(positions) if catalogue.packed else np.arange(len(positions))  # shards are read as they lie

        def decode(step: int) -> None:
            row = order[step]
            name = samples[positions[row]].name
            into[row] = load_image(catalogue.root / name, framing, catalogue.data(name))

        failures = decode_all(len(order), decode, "images", progress, config.max_bad_fraction)
        return {int(order[step]): (samples[positions[order[step]]].name, str(e)) for step, e in failures.items()}

    def read(split: str, position: int) -> BinaryIO:
        name = catalogue.samples[split][position].name
        return catalogue.data(name) or open_file(catalogue.root / name)

    return ImageSource(
        classes=catalogue.classes,
        targets=ClassTargets(class_numbers(catalogue)),
        shape=framing.shape,
        fill=fill,
        name=lambda split, position: str(path(split, position)),
        config=config,
        framing=framing,
        counts={"files_left_out": float(len(catalogue.left_out))},
        groups=group_numbers(catalogue),
        slices={split: [sample.slices for sample in of] for split, of in catalogue.samples.items()},
        read=read,
    )


_COUNTED = {
    "bad_images": "{} images of {} cannot be read and are left out; left_out.json in the data artifact lists them",
    "contradictory_images": "{} images of {} are there under several classes: the network cannot learn both",
    "repeated_test_images": "{} test images of {} come more than once: they count as often in the gate",
}


def _some(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: float(number) for name, number in counts.items() if number}


def _read(out: Path, split: str) -> Images:
    images: Images = np.load(out / f"{split}.images.npy", mmap_mode="r", allow_pickle=False)
    return images


def _keep(out: Path, split: str, rows: Indices) -> None:
    """Only the images at ``rows`` of a split that is written, a part at a time."""
    old, aside = _read(out, split), out / "aside.npy"
    new: Images = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=(len(rows), *old.shape[1:]))
    for start in range(0, len(rows), 256):
        new[start : start + 256] = old[rows[start : start + 256]]
    new.flush()  # type: ignore[attr-defined]
    aside.replace(out / f"{split}.images.npy")


def _refuse_gone(source: ImageSource, split: str, part: Part, keep: Indices, why: str) -> None:
    left = Part(part.origin, part.positions[keep])
    gone = sorted(set(source.lost(left)) - set(source.lost(part)))
    if split == "train" and gone:
        raise DataError(
            f"class {source.classes[gone[0]]!r} has no training image of its own ({len(gone)} such): all {why}; "
            "add others"
        )
    if not len(keep):
        why = "are copies of others" if why.startswith("are copies") else why
        raise DataError(f"the {split} split is empty: all its images {why}; add others")


def _train(out: Path) -> Images:
    return _read(out, "train")
