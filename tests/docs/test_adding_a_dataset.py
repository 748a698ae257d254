"""docs/adding-a-dataset.md, followed to the letter: pictures of another package for image-classification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dlx_deploy.config import Data, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import check_offered, find_task, is_built_in, prepare, task_for

from .pages import installed_package

PAGE = "adding-a-dataset.md"
DATA = Data(kind="bars")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[None]:
    with installed_package("bar-pictures", "1.3.0", PAGE, {"bars": "DataKind("}, tmp_path / "site"):
        yield


def test_the_task_is_the_one_that_there_is_with_other_data() -> None:
    task, ours = task_for(DATA), find_task("image-classification")
    assert (task.name, dict(task.kinds)) == ("image-classification", {"bars": "made-up pictures of bars"})
    assert (task.answers, task.device) == (ours.answers, ours.device)
    assert is_built_in("bars")
    check_offered(DATA, task)
    with pytest.raises(ConfigError, match=r"data\.height is 9; the bars are 8 x 8: leave it out"):
        task.inputs.check(Data(kind="bars", height=9))


def test_its_package_is_in_the_key_of_the_data_alone() -> None:
    steps = steps_for(load_config(None, ["data.kind=bars"]), load_target("cpu-x86_64").profile)
    assert [step.name for step in steps if "bar-pictures" in step.stage.tools] == ["data"]
    assert steps[0].stage.tools == ("numpy", "pillow", "bar-pictures")


def test_the_data_are_prepared_as_those_of_the_task(tmp_path: Path) -> None:
    counts = prepare(DATA, tmp_path / "data", seed=0)
    assert (counts["classes"], counts["test_images"]) == (2, 200)
    data = open_data(tmp_path / "data")
    assert (data.task, data.classes) == ("image-classification", ("lying", "standing"))
    images, labels = data.split("test")
    by_rows, by_columns = (images[..., 0].mean(axis=axis).max(axis=1) for axis in (2, 1))
    assert (by_columns > by_rows).astype(int).tolist() == labels.tolist()
    prepare(DATA, tmp_path / "again", seed=0)
    for path in (tmp_path / "data").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
