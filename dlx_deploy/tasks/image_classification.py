"""image-classification: which of several classes an image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import LAYOUTS, Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Source, Tree
from dlx_deploy.progress import Progress
from dlx_deploy.tasks.classes import Classes
from dlx_deploy.tasks.images import Images, image_header
from dlx_deploy.tasks.task import Task

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.prepare import DataSource
    from dlx_deploy.nn.data.survey.findings import Surveyed
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["TASK"]

_DIGITS = "digits"
_DIGIT_SHAPE = (8, 8, 1)
_DIGIT_CLASSES = 10


def _files(data: Data) -> dict[str, Source]:
    if data.kind == _DIGITS:
        return {}
    from dlx_deploy.nn.data import catalogue
    from dlx_deploy.nn.data.listing import image_names
    from dlx_deploy.nn.data.shards import SHARDS, shard_names

    if not data.path:
        raise ConfigError(f"data.path is ''; data.kind {data.kind!r} needs {catalogue.NEEDED[data.kind]}")
    files: dict[str, Source] = {"classes": Path(data.classes)} if data.classes else {}
    if data.kind == catalogue.LIST:
        names = partial(catalogue.listed_names, data.path)
        return {**files, "list": Path(data.path), "root": Tree(catalogue.list_root(data), names)}
    if data.kind in SHARDS:
        path = Path(data.path)
        return {**files, "images": path if path.is_file() else Tree(path, partial(shard_names, data.kind))}
    return {**files, "images": Tree(Path(data.path), image_names)}


def _source(data: Data, progress: Progress) -> DataSource:
    from dlx_deploy.nn.data.images import image_source

    return image_source(data, progress)


def _survey(data: Data, seed: int, progress: Progress) -> Surveyed:
    from dlx_deploy.nn.data.survey.images import survey_images

    return survey_images(data, seed, progress)


def _classes(data: Data) -> int | None:
    """How many there are, from a file of their names, or the names of folders, or a list; not from inside of shards."""
    if data.kind == _DIGITS:
        return _DIGIT_CLASSES
    from dlx_deploy.nn.data.catalogue import open_catalogue
    from dlx_deploy.nn.data.shards import SHARDS

    if data.kind in SHARDS:
        return None

    return len(open_catalogue(data).classes)


def _device(data: Dataset, golden: Sequence[int], dims: Mapping[str, Sequence[int | None]]) -> DeviceTask:
    from dlx_deploy.runtime.tasks.image_classification import image_classification

    return image_classification(image_header(data).framing, data.classes)


TASK = Task(
    name="image-classification",
    kinds={_DIGITS: "scikit-learn's digits", **dict.fromkeys(LAYOUTS, "")},
    inputs=Images({_DIGITS: _DIGIT_SHAPE}),
    answers=Classes(),
    files=_files,
    source=_source,
    classes=_classes,
    device=_device,
    statement="Image classification. Input: uint8 NHWC images; the package resizes them, the graph normalises them.",
    libraries={_DIGITS: ("scikit-learn",), "huggingface": ("pyarrow",)},
    survey=_survey,
)
