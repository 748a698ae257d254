"""What a build's summary says of the data."""

from __future__ import annotations

import msgspec
import pytest

from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.manifest import Manifest, StepEntry
from dlx_deploy.report.builds import _data_line


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"files_left_out": 0.0, "test_images": 9.0}, ""),
        ({"files_left_out": 12.0, "copies_left_out": 0.0, "leaked_images": 3.0}, "12 files left out, 3 leaked images"),
    ],
)
def test_what_was_left_out_of_the_data_is_in_the_summary(metrics: dict[str, float], said: str) -> None:
    entry = StepEntry(
        step="data",
        status="cached",
        why="cached",
        key="0" * 64,
        document=KeyDocument(1, "data", 1, 0, {}, {}, [], {}, {}, {}),
        outputs={},
        metrics=metrics,
        started="",
        seconds=0.1,
    )
    manifest = Manifest(
        schema=1, dlx_deploy="1", target_name="t", target=None, config=None, host={}, started="", status="done"
    )
    assert _data_line(manifest) == ""
    expected = f"Data: {said}.\n" if said else ""
    assert _data_line(msgspec.structs.replace(manifest, steps=(entry,))) == expected
