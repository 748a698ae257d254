"""semantic-segmentation: which class each pixel of an image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Source, Tree
from dlx_deploy.progress import Progress
from dlx_deploy.tasks.images import Images, image_header
from dlx_deploy.tasks.masks import Masks
from dlx_deploy.tasks.task import Task

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.prepare import DataSource
    from dlx_deploy.nn.data.survey.findings import Surveyed
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["TASK"]

_SCENES, _FOLDERS = "scenes", "maskfolder"
_SCENE_SHAPE = (32, 32, 3)
_SCENE_CLASSES = 11


def _files(data: Data) -> dict[str, Source]:
    if data.kind == _SCENES:
        if data.ignore_index != Data().ignore_index:
            seen = f"data.ignore_index is {data.ignore_index}"
            raise ConfigError(f"{seen}; every pixel of the scenes counts: leave it out")
        return {}
    if not data.path:
        raise ConfigError(
            f"data.path is ''; data.kind '{_FOLDERS}' needs the folder that holds train/images/*.jpg and "
            "train/masks/*.png"
        )
    from dlx_deploy.nn.data.mask_listing import mask_names
    from dlx_deploy.nn.data.mask_rows import used_list

    return {"images": Tree(Path(data.path), partial(mask_names, listed=used_list(data)))}


def _source(data: Data, progress: Progress) -> DataSource:
    from dlx_deploy.nn.data.masks import mask_source

    return mask_source(data, progress)


def _survey(data: Data, seed: int, progress: Progress) -> Surveyed:
    from dlx_deploy.nn.data.survey.masks import survey_masks

    return survey_masks(data, seed, progress)


def _classes(data: Data) -> int | None:
    """How many names ``classes.txt`` has; without it only the masks themselves will say."""
    if data.kind == _SCENES:
        return _SCENE_CLASSES
    from dlx_deploy.nn.data.mask_listing import named_classes

    return len(named_classes(Path(data.path))) or None


def _device(data: Dataset, golden: Sequence[int], dims: Mapping[str, Sequence[int | None]]) -> DeviceTask:
    from dlx_deploy.nn.data.mask_header import MaskHeader
    from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation

    header = image_header(data)
    assert isinstance(header, MaskHeader)
    return semantic_segmentation(header.framing, data.classes, header.ignore_index)


TASK = Task(
    name="semantic-segmentation",
    kinds={_SCENES: "scenes made of scikit-learn's digits", _FOLDERS: ""},
    inputs=Images({_SCENES: _SCENE_SHAPE}),
    answers=Masks(),
    files=_files,
    source=_source,
    classes=_classes,
    device=_device,
    statement="Semantic segmentation: a class for each pixel. Input: uint8 NHWC images; the package resizes them, the "
    "graph normalises them.",
    libraries={_SCENES: ("scikit-learn",)},
    survey=_survey,
)
