"""The teacher's answers, computed once where they are always the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx_deploy.config import Data, Distill, load_config
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.views import Views
from dlx_deploy.nn.weights.network import Architecture, save_model
from dlx_deploy.pipeline.stage import Job, Output
from dlx_deploy.stages.logits import STAGE
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.training import distilling
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare


@pytest.fixture
def job(tmp_path: Path) -> Job[Views]:
    prepare(Data(kind="digits", limit_train=64, limit_test=32), tmp_path / "data", 0)
    spec = ImageInput(1, 8, 8)
    model = build_model("resnet8", {"width": 0.5}, 10, spec).eval()
    architecture = Architecture(model="resnet8", arguments={"width": 0.5}, classes=10, input=spec)
    save_model(tmp_path / "teacher", model, architecture)
    (tmp_path / "out").mkdir()
    inputs = {"data": tmp_path / "data", "teacher": tmp_path / "teacher"}
    return Job(Views(), inputs, tmp_path / "out", threads=1)


def test_one_row_for_each_training_sample_in_its_order(job: Job[Views]) -> None:
    metrics = STAGE.run(job)
    logits = np.load(job.out / "logits.npy")
    _, labels = open_data(job.inputs["data"]).split("train")
    assert (logits.shape, logits.dtype) == ((len(labels), 10), np.float32)
    assert metrics["train_samples"] == len(labels)
    assert metrics["train_top1"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_all_rows_for_each_view(job: Job[Views], monkeypatch: pytest.MonkeyPatch) -> None:
    as_stored = STAGE.run(job)
    stored = np.load(job.out / "logits.npy")
    views = replace(job, params=Views(shift_px=1))
    assert STAGE.run(views) == {**as_stored, "views": 9.0}
    logits = np.load(job.out / "logits.npy")
    assert logits.shape == (9 * len(stored), 10)
    np.testing.assert_array_equal(logits[4 * len(stored) : 5 * len(stored)], stored)  # the middle one: no shift
    monkeypatch.setattr("dlx_deploy.stages.logits._MOST_BYTES", logits.nbytes - 1)
    assert STAGE.run(views) == {"train_samples": len(stored), "views": 0.0}
    assert np.load(job.out / "logits.npy").shape == (0, 10)


def test_a_student_asks_the_teacher_itself_where_answers_are_too_many_to_keep(job: Job[Views]) -> None:
    np.save(job.inputs["data"].parent / "none.npy", np.zeros((0, 10), np.float32))
    data, learner = open_data(job.inputs["data"]), Distill(epochs=9)
    inputs = {**job.inputs, "logits": job.inputs["data"].parent / "none.npy"}
    rows = torch.arange(4)
    batch = Batch(torch.zeros(4, 1, 8, 8), rows, rows, views=rows)
    kept, asked = (distilling(replace(job, params=learner, inputs=i), data) for i in (inputs, job.inputs))
    logits = torch.randn(4, 10)
    assert torch.equal(kept(logits, batch), asked(logits, batch))


@pytest.mark.parametrize(
    ("overrides", "learners"),
    [
        ([], ["distill", "prune"]),
        (["distill.epochs=8", "prune.epochs=8"], []),  # nine shifts: more than to ask it as they train
        (["training.flip=true"], ["distill", "prune"]),
        (["training.flip=true", "training.shift_px=2"], []),
        (["training.mixup=0.2"], []),
        (["distill.shift_px=0", "prune.shift_px=0"], ["distill", "prune"]),
        (["training.shift_px=0", "distill.epochs=0"], ["prune"]),
        (["distill.shift_px=0", "prune.rand_augment=2"], ["distill"]),
        (["distill.shift_px=0", "distill.enabled=false", "prune.epochs=8"], []),
        (["data.kind=docstrings", "teacher.model=transformer", "distill.model=transformer"], ["distill", "prune"]),
    ],
)
def test_who_learns_from_them(overrides: list[str], learners: list[str]) -> None:
    steps = steps_for(load_config(None, overrides), load_target("jetson").profile)
    answers = Output("teacher-logits", "logits.npy")
    assert [step.name for step in steps if answers in step.inputs.values()] == learners
    assert [step.name for step in steps].count("teacher-logits") == bool(learners)


def test_students_that_see_other_views_have_answers_of_their_own() -> None:
    steps = {s.name: s for s in steps_for(load_config(None, ["prune.flip=true"]), load_target("jetson").profile)}
    assert steps["teacher-logits"].params == Views(shift_px=1)
    assert steps["distill"].inputs["logits"] == Output("teacher-logits", "logits.npy")
    assert steps["teacher-logits-prune"].params == Views(shift_px=1, flip=True)
    assert steps["prune"].inputs["logits"] == Output("teacher-logits-prune", "logits.npy")
