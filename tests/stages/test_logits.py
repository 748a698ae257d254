"""The teacher's answers, computed once where they are always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlx_deploy.config import Data, load_config
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.weights.network import Architecture, save_model
from dlx_deploy.pipeline.stage import Job, Output
from dlx_deploy.stages.logits import STAGE
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.training import NoParams
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare


def test_one_row_for_each_training_sample_in_its_order(tmp_path: Path) -> None:
    prepare(Data(kind="digits", limit_train=64, limit_test=32), tmp_path / "data", 0)
    spec = ImageInput(1, 8, 8)
    model = build_model("resnet8", {"width": 0.5}, 10, spec).eval()
    architecture = Architecture(model="resnet8", arguments={"width": 0.5}, classes=10, input=spec)
    save_model(tmp_path / "teacher", model, architecture)
    (tmp_path / "out").mkdir()
    inputs = {"data": tmp_path / "data", "teacher": tmp_path / "teacher"}
    metrics = STAGE.run(Job(NoParams(), inputs, tmp_path / "out", threads=1))
    logits = np.load(tmp_path / "out" / "logits.npy")
    _, labels = open_data(tmp_path / "data").split("train")
    assert (logits.shape, logits.dtype) == ((len(labels), 10), np.float32)
    assert metrics["train_samples"] == len(labels)
    assert metrics["train_top1"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize(
    ("overrides", "learners"),
    [
        ([], []),
        (["distill.shift_px=0", "prune.shift_px=0"], ["distill", "prune"]),
        (["training.shift_px=0", "distill.epochs=0"], ["prune"]),
        (["distill.shift_px=0"], ["distill"]),
        (["distill.shift_px=0", "distill.enabled=false"], []),
        (["data.kind=docstrings", "teacher.model=transformer", "distill.model=transformer"], ["distill", "prune"]),
    ],
)
def test_who_learns_from_them(overrides: list[str], learners: list[str]) -> None:
    steps = steps_for(load_config(None, overrides), load_target("jetson").profile)
    answers = Output("teacher-logits", "logits.npy")
    assert [step.name for step in steps if answers in step.inputs.values()] == learners
    assert [step.name for step in steps].count("teacher-logits") == bool(learners)
