"""What ``[data]`` says of images, whatever their task."""

from __future__ import annotations

import pytest

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.tasks.images import Images

MARKS = Images({"marks": (6, 9, 1)})


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (Data(kind="marks"), ImageInput(1, 6, 9)),
        (Data(kind="marks", channels=3, height=6, width=9), ImageInput(3, 6, 9)),
        (Data(kind="files", height=20), ImageInput(3, 20, 20)),
        (Data(kind="files", height=20, width=30, channels=1), ImageInput(1, 20, 30)),
    ],
)
def test_built_in_kinds_have_their_own_size(data: Data, spec: ImageInput) -> None:
    MARKS.check(data)
    assert MARKS.expected(data) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(kind="marks", width=6), r"data\.width is 6; the marks are 6 x 9: leave it out"),
        (Data(kind="marks", mean=(0.1, 0.2, 0.3)), r"data\.mean has 3 values .*; the images have 1 channels"),
        (Data(kind="files"), r"data\.height is 0; data\.kind 'files' needs the height"),
    ],
)
def test_other_sizes_are_refused(data: Data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MARKS.check(data)
