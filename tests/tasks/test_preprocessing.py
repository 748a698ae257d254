"""What a network reads here is held against what its own library would show it of the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlx_deploy.config import Data, load_config
from dlx_deploy.nn.data import originals
from dlx_deploy.nn.data.originals import original_files
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.tasks import prepare
from dlx_deploy.tasks.preprocessing import preprocessing_notes
from dlx_deploy.tasks.recipes import with_recipe

RECIPE = {"input_size": [3, 32, 32], "crop_pct": 0.8, "interpolation": "bicubic", "mean": [0.4, 0.5, 0.6]}
CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of several sizes, in files of any name."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 6), ("test", 2)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                small.resize((60 + 9 * i, 70), Image.Resampling.BICUBIC).save(root / split / name / f"{i} of.png")
    return root


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A checkpoint of timm's, with the recipe beside it."""
    timm: Any = pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.pt")
    names = {"pretrained_cfg": RECIPE, "label_names": list(CLASSES)}
    (tmp_path / "config.json").write_text(json.dumps(names))
    return tmp_path / "w.pt"


def taught(photographs: Path, checkpoint: Path, *keys: str) -> dict[str, float]:
    """The teacher stage's metrics, on data as its recipe says but for ``keys``."""
    where = [f"data.path={json.dumps(str(photographs))}", f"teacher.checkpoint={json.dumps(str(checkpoint))}"]
    section = ["data.kind=imagefolder", "teacher.model=timm:test_resnet", "teacher.epochs=0", *where, *keys]
    config, _ = with_recipe(load_config(None, section), checkpoint.parent / "recipes")
    prepare(config.data, checkpoint.parent / "data", 0)
    files = original_files(checkpoint.parent / "data")
    assert [path.name for path in files] == [f"{i:04}" for i in range(min(config.data.originals, 12))]
    inputs = {"data": checkpoint.parent / "data", "checkpoint": checkpoint}
    (out := checkpoint.parent / "out").mkdir()
    return load_stage("teacher").run(Job(params=config.teacher, inputs=inputs, out=out, threads=1))


def test_the_recipe_gives_what_its_library_gives(photographs: Path, finished: Path) -> None:
    metrics = taught(photographs, finished)
    assert (metrics["preprocessing_images"], metrics["preprocessing_top1_agreement"]) == (12, 1)
    assert metrics["preprocessing_max_abs_diff"] < 1e-5


def test_another_rule_is_measured(photographs: Path, finished: Path) -> None:
    metrics = taught(photographs, finished, "data.resize=squash", "data.originals=5")
    assert metrics["preprocessing_images"] == 5
    assert metrics["preprocessing_mean_abs_diff"] > 0.15
    assert metrics["preprocessing_max_abs_diff"] > metrics["preprocessing_mean_abs_diff"]
    (note,) = preprocessing_notes(metrics)
    assert note.endswith("that is much: leave resize, interpolation, mean and std out of [data]")


def test_other_sizes_are_not_compared(photographs: Path, finished: Path) -> None:
    assert "preprocessing_images" not in taught(photographs, finished, "data.height=48")


@pytest.mark.parametrize(
    ("mean", "agreement", "much"), [(0.0012, 1.0, False), (0.2, 1.0, True), (0.01, 0.9, True), (0.01, 0.975, False)]
)
def test_what_is_said(mean: float, agreement: float, much: bool) -> None:
    found = {"images": 40.0, "mean_abs_diff": mean, "max_abs_diff": 0.5, "top1_agreement": agreement}
    (note,) = preprocessing_notes({f"preprocessing_{name}": value for name, value in found.items()})
    assert note.startswith("preprocessing: of 40 files what the network reads differs from what its own library makes")
    assert f"by {mean:.4f} on average (normalised values; at most 0.5000)" in note
    assert f"answers {round(40 * agreement)} of them alike" in note
    assert ("that is much" in note) == much
    assert preprocessing_notes({}) == ()


def test_files_that_are_kept_have_a_bound(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sorted(path.stat().st_size for path in photographs.glob("validation/*/*"))
    monkeypatch.setattr(originals, "_MOST_BYTES", sum(whole) // 2)
    data = Data(kind="imagefolder", path=str(photographs), height=8, originals=64)
    prepare(data, tmp_path / "data", 0)
    kept = [path.stat().st_size for path in original_files(tmp_path / "data")]
    assert 0 < len(kept) < len(whole)
    assert sum(kept) <= sum(whole) // 2
    prepare(Data(kind="imagefolder", path=str(photographs), height=8), tmp_path / "none", 0)
    assert original_files(tmp_path / "none") == []
