from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dlx_deploy.config import Distill, Teacher
from dlx_deploy.errors import ConfigError, DataError, StageFailed, StoreError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import Batch, TrainData
from dlx_deploy.nn.training.classes import TOP1, class_blend, cross_entropy, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import evaluate, predict_logits
from dlx_deploy.nn.training.loop import RunContext, TrainReport, train
from dlx_deploy.nn.training.losses import LossFn, distilled
from dlx_deploy.nn.training.schedules import learning_rate
from dlx_deploy.tasks import task_of

SETTINGS = Teacher(epochs=4, batch_size=48, learning_rate=0.1, flip=True)


def student() -> nn.Module:
    """A small network with batch normalisation and dropout."""
    seed_all(0)
    body = build_model("resnet8", {"width": 0.5}, 10, ImageInput(1, 8, 8))
    return nn.Sequential(body, nn.Dropout(0.1))


def run(data: TrainData, folder: Path | None, loss: LossFn | None = None) -> tuple[dict[str, Tensor], TrainReport]:
    model = student()
    report = train(model, data, SETTINGS, loss or supervised(0.1), RunContext(folder, seed=5), Hooks(TOP1))
    return model.state_dict(), report


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Stopped(Exception):
    """What stands for a crash."""


def stopping_at(step: int, stop: Callable[[], None]) -> LossFn:
    seen = iter(range(10_000))

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        if next(seen) == step:
            stop()
        return supervised(0.1)(logits, batch)

    return loss


def crash() -> None:
    raise Stopped


@pytest.fixture(scope="module")
def unbroken(train_data: TrainData) -> tuple[dict[str, Tensor], TrainReport]:
    set_threads(1)
    return run(train_data, None)


def test_it_learns(train_data: TrainData, unbroken: tuple[dict[str, Tensor], TrainReport]) -> None:
    _, report = unbroken
    assert report.epochs == 4
    assert len(report.losses) == len(report.scores) == 4
    assert list(report.losses) == sorted(report.losses, reverse=True)
    assert report.last_score >= 0.4  # guessing has 0.1
    assert report.best_score == max(report.scores)
    assert report.samples_per_s > 0


@pytest.mark.parametrize("step", [2, 6, 13, 23])
def test_a_broken_run_ends_in_the_same_bits(
    step: int, train_data: TrainData, tmp_path: Path, unbroken: tuple[dict[str, Tensor], TrainReport]
) -> None:
    with pytest.raises(Stopped):
        run(train_data, tmp_path, stopping_at(step, crash))
    torch.manual_seed(12345)  # another process would not have this state
    state, report = run(train_data, tmp_path)
    assert same(state, unbroken[0])
    assert report.resumed_from == step // 6  # 288 images in 6 batches
    assert (report.losses, report.scores) == (unbroken[1].losses, unbroken[1].scores)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import importlib.util
spec = importlib.util.spec_from_file_location("training_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
tests.child(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
"""


def child(data: Path, folder: Path, step: int) -> None:
    """What the killed process runs: train on ``data``, die at ``step`` or write the weights to ``folder``."""
    from dlx_deploy.nn.data.dataset import open_data

    set_threads(1)
    loss = stopping_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    state, _ = run(
        TrainData.of(open_data(data), task_of(open_data(data)).inputs.feed(open_data(data))),
        folder / "checkpoints",
        loss,
    )
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "final.safetensors")


def test_kill_9_and_a_new_process_end_in_the_same_bits(
    digits: object, train_data: TrainData, tmp_path: Path, unbroken: tuple[dict[str, Tensor], TrainReport]
) -> None:
    folder = digits.folder  # type: ignore[attr-defined]
    command = [sys.executable, "-c", SCRIPT, __file__, str(folder), str(tmp_path)]
    killed = subprocess.run([*command, "15"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("*.json")) == ["epoch-00001.json", "epoch-00002.json"]
    finished = subprocess.run([*command, "-1"], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert same(load_file(tmp_path / "final.safetensors"), unbroken[0])


def test_the_last_two_checkpoints_are_kept(train_data: TrainData, tmp_path: Path) -> None:
    run(train_data, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-00003.json",
        "epoch-00003.safetensors",
        "epoch-00004.json",
        "epoch-00004.safetensors",
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "json"])
def test_a_damaged_checkpoint_falls_back_to_the_older(
    damage: str,
    train_data: TrainData,
    tmp_path: Path,
    unbroken: tuple[dict[str, Tensor], TrainReport],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Stopped):
        run(train_data, tmp_path, stopping_at(20, crash))
    tensors = tmp_path / "epoch-00003.safetensors"
    content = tensors.read_bytes()
    if damage == "cut":
        tensors.write_bytes(content[:-100])
    elif damage == "flipped":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        tensors.unlink()
    else:
        (tmp_path / "epoch-00003.json").write_text('{"schema": 1')
    with caplog.at_level(logging.WARNING):
        state, report = run(train_data, tmp_path)
    assert report.resumed_from == 2
    assert "epoch-00003.json: damaged" in caplog.text
    assert same(state, unbroken[0])


def test_a_checkpoint_of_another_run_is_passed_over(
    train_data: TrainData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(train_data, tmp_path)
    model = student()
    with caplog.at_level(logging.WARNING):
        report = train(model, train_data, SETTINGS, supervised(0.1), RunContext(tmp_path, seed=6), Hooks(TOP1))
    assert report.resumed_from == 0
    assert "belongs to another run" in caplog.text


def test_a_finished_run_is_not_repeated(
    train_data: TrainData, tmp_path: Path, unbroken: tuple[dict[str, Tensor], TrainReport]
) -> None:
    run(train_data, tmp_path)
    state, report = run(train_data, tmp_path, stopping_at(0, crash))
    assert same(state, unbroken[0])
    assert (report.resumed_from, report.samples_per_s) == (4, 0.0)


def test_a_checkpoint_folder_that_cannot_be_written(train_data: TrainData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file: cannot write a checkpoint \(.*\); free space or mend"):
        run(train_data, tmp_path / "file")


def test_seeds_give_different_weights(train_data: TrainData, unbroken: tuple[dict[str, Tensor], TrainReport]) -> None:
    model = student()
    train(model, train_data, SETTINGS, supervised(0.1), RunContext(seed=6), Hooks(TOP1))
    assert not same(model.state_dict(), unbroken[0])


def test_distillation_brings_the_student_to_its_teacher(train_data: TrainData) -> None:
    class Wrong(nn.Module):
        """A teacher that answers one class for everything."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 7), 10) * 20.0

    model = student()
    train(
        model,
        train_data,
        Distill(epochs=3, batch_size=48),
        distilled(Wrong(), class_blend(Distillation(1.0, 1.0))),
        RunContext(),
        Hooks(TOP1),
    )
    logits = predict_logits(model, train_data.validation_inputs, train_data.feed)
    assert (logits.argmax(1) == 7).all()


def test_a_loss_knows_how_far_the_run_is_resumed_or_not(train_data: TrainData, tmp_path: Path) -> None:
    seen: list[float] = []

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        seen.append(batch.done)
        return cross_entropy(logits, batch.targets)

    settings = Distill(epochs=2, batch_size=48, accumulate=2, soft_warmup=0.5)
    train(student(), train_data, settings, loss, RunContext(tmp_path), Hooks(TOP1))
    batches = len(seen) // 2
    steps = math.ceil(batches / 2)
    assert seen == [(epoch * steps + i // 2) / (2 * steps) for epoch in range(2) for i in range(batches)]
    whole, last = list(seen), sorted(tmp_path.glob("*"))[-1]
    last.unlink()
    seen.clear()
    train(student(), train_data, settings, loss, RunContext(tmp_path), Hooks(TOP1))
    assert seen == whole[batches:]


def test_every_image_once_an_epoch_and_no_batch_of_one(train_data: TrainData) -> None:
    count = 33  # 32 + 1
    data = dataclasses.replace(train_data, inputs=train_data.inputs[:count], targets=train_data.targets[:count])
    sizes: list[int] = []
    seen: list[bytes] = []

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        sizes.append(len(batch.targets))
        seen.extend(i.numpy().tobytes() for i in batch.inputs)
        return cross_entropy(logits, batch.targets)

    settings = Teacher(epochs=1, batch_size=32, shift_px=0)
    train(student(), data, settings, loss, RunContext(), Hooks(TOP1))
    assert sizes == [17, 16]
    assert len(set(seen)) == len({i.tobytes() for i in data.inputs})
    pair = dataclasses.replace(data, inputs=data.inputs[:3], targets=data.targets[:3])
    sizes.clear()
    train(student(), pair, Teacher(epochs=1, batch_size=2), loss, RunContext(), Hooks(TOP1))
    assert sizes == [3]


def test_no_epochs_only_measures(train_data: TrainData) -> None:
    model = student()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = train(model, train_data, Teacher(epochs=0, batch_size=10_000), supervised(0), RunContext(), Hooks(TOP1))
    assert same(model.state_dict(), before)
    expected = evaluate(model, train_data.validation_inputs, train_data.validation_targets, train_data.feed, TOP1)
    assert report.last_score == report.best_score == expected


def test_divergence_is_named(train_data: TrainData) -> None:
    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch.targets) * (math.nan if next(steps) == 8 else 1)

    steps = iter(range(100))
    with pytest.raises(
        StageFailed,
        match=r"teacher: training diverged: loss nan, gradient norm nan at epoch 2, step 3, "
        r"learning rate 0\.09\d*; both must be finite: lower teacher\.learning_rate",
    ):
        run(train_data, None, loss)


def test_too_few_images(train_data: TrainData) -> None:
    with pytest.raises(DataError, match=r"the training split has 288 images and batch_size is 300; a batch must not"):
        train(student(), train_data, Teacher(batch_size=300), supervised(0), RunContext(), Hooks(TOP1))
    with pytest.raises(ConfigError, match=r"batch_size is 1; batch normalisation needs at least 2"):
        train(student(), train_data, Teacher(batch_size=1), supervised(0), RunContext(), Hooks(TOP1))


def test_progress_tells_epochs(train_data: TrainData) -> None:
    seen: list[tuple[float, float, str]] = []
    context = RunContext(progress=lambda done, total, text="": seen.append((done, total, text)))
    train(student(), train_data, Teacher(epochs=2), supervised(0), context, Hooks(TOP1))
    assert [s[:2] for s in seen if s[0] in (1, 2)] == [(1, 2), (2, 2)]
    assert "loss" in seen[-1][2]
    assert "images/s" in seen[-1][2]
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


@given(st.integers(1, 500), st.floats(0.0, 0.99), st.floats(1e-4, 10))
def test_the_schedule_rises_to_its_peak_and_falls(steps: int, warmup: float, peak: float) -> None:
    settings = Teacher(warmup_fraction=warmup, learning_rate=peak)
    rates = [learning_rate(i, steps, settings) for i in range(steps)]
    top = int(np.argmax(rates))
    assert all(0 < r <= peak * (1 + 1e-12) for r in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 20 and warmup < 0.5:
        assert rates[top] > 0.9 * peak
        assert rates[-1] < 0.05 * peak


def test_predictions_do_not_depend_on_the_batch(train_data: TrainData) -> None:
    model = student()
    model.train()
    images = train_data.validation_inputs
    whole = predict_logits(model, images, train_data.feed)
    parts = predict_logits(model, images, train_data.feed, batch=7)
    assert model.training
    assert (whole.dtype, whole.shape) == (np.float32, (len(images), 10))
    assert parts == pytest.approx(whole, abs=1e-5)
    labels = np.where(np.arange(len(images)) < 8, whole.argmax(1), -1)
    assert evaluate(model, images, labels, train_data.feed, TOP1) == 8 / len(images)


def test_threads_are_counted() -> None:
    assert set_threads(2) == torch.get_num_threads() == 2
    assert set_threads(0) == torch.get_num_threads() >= 1
    assert torch.are_deterministic_algorithms_enabled()
