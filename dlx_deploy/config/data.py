"""``[data]``: where samples come from, and how they become what a network reads."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from dlx_deploy.config.values import AtLeastOne, Count, Fraction, Level, Positive, Section

__all__ = [
    "LAYOUTS",
    "Data",
]

LAYOUTS = ("imagefolder", "imagelist", "webdataset", "huggingface")
"""The values of ``data.kind`` for labelled images of the user's own, which may be for evaluation alone."""


class Data(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the images or texts come from and how they are split.

    ``kind = "digits"``: scikit-learn's 1,797 scanned digits, 8 x 8, one channel.
    ``kind = "imagefolder"``: ``path/train/CLASS/**/*.jpg`` (or another format of ``runtime.filenames.IMAGE_SUFFIXES``,
    any size) with optional ``path/test`` and ``path/validation``; a split that has no folder is drawn from ``train``,
    stratified by class.
    ``kind = "imagelist"``: ``path`` is a CSV or JSONL file with columns path and label, maybe split and group.
    ``kind = "webdataset"``: ``path`` is a folder of tar files, ``train-00000.tar``, …. ``kind = "huggingface"``:
    a folder of Parquet files, or of Arrow files as ``save_to_disk`` writes them.
    ``kind = "docstrings"``: first paragraphs of docstrings of numpy, scikit-learn and torch; which package is it?
    ``kind = "text"``: ``path/train.csv`` (columns text and label) or ``train.jsonl``, and likewise ``validation`` and
    ``test``; or one such file.
    ``slices``: columns of an image list, of texts, of shards or of the list beside masks; test samples of each value
    are judged by themselves.
    ``kind = "scenes"``: the digits on textured ground, with masks. ``kind = "maskfolder"``: ``path/train/images`` and
    ``path/train/masks`` (index PNGs), and likewise ``validation`` and ``test``.
    """

    KEYED_WHERE_SET: ClassVar[tuple[str, ...]] = ("slices",)

    kind: str = "digits"
    path: str = ""
    height: Count = 0
    width: Count = 0
    channels: Literal[0, 1, 3] = 0
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 1 / 3
    calibration_images: AtLeastOne = 256
    limit_train: Count = 0
    limit_test: Count = 0
    allow_missing_classes: bool = False
    allow_leakage: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[Positive, ...] = ()
    scale: Annotated[float, Meta(ge=0.0)] = 0.0
    resize: Literal["", "squash", "crop", "letterbox"] = ""
    crop_fraction: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    resize_size: Annotated[tuple[AtLeastOne, ...], Meta(max_length=2)] = ()
    crop_offset: Literal["", "round", "floor"] = ""
    interpolation: Literal["", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = ""
    fill: Annotated[tuple[Level, ...], Meta(max_length=3)] = ()
    color_order: Literal["", "rgb", "bgr"] = ""
    originals: Count = 0
    tokenizer: str = "bytes"
    vocabulary: Annotated[int, Meta(ge=300)] = 4096
    max_length: AtLeastOne = 128
    truncate: bool = False
    ignore_index: Annotated[int, Meta(ge=0, le=255)] = 255
    # Where samples come from.
    root: str = ""
    classes: str = ""
    group_by: str = ""
    slices: tuple[str, ...] = ()
    max_bad_fraction: Fraction = 0.0
    use: Literal["auto", "training", "evaluation"] = "auto"

    def __post_init__(self) -> None:
        folded = [name.strip().lower() for name in self.slices]
        if "" in folded or any("=" in name for name in folded) or len(set(folded)) < len(folded):
            raise ValueError(f"slices is {list(self.slices)}; rule: names of columns, none twice, none with '='")
        if self.group_by:
            try:
                re.compile(self.group_by)
            except re.error as e:
                raise ValueError(
                    f"group_by is {self.group_by!r}, no regular expression ({e}); rule: one that finds the group in an "
                    "image's path, for instance 'patient([0-9]+)'"
                ) from e
        if self.tokenizer not in ("bytes", "words") and not self.tokenizer.endswith(".json"):
            raise ValueError(f"tokenizer is {self.tokenizer!r}; rule: 'bytes', 'words' or the path of a tokenizer.json")
