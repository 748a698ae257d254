"""Checkpoints of a training run that were damaged, forged or belong to another: never taken, always said."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.config import Teacher
from dlx_deploy.nn.training import checkpoints
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, TrainReport, train

RUN = "a" * 64
TENSORS = {"model.weight": torch.arange(3.0)}
Forgery = Callable[[dict[str, Tensor], dict[str, Any]], object]


def history(epochs: int) -> dict[str, Any]:
    return {"losses": [0.5] * epochs, "scores": [0.25] * epochs, "scaler": {}}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for epoch in (1, 2):
        checkpoints.write(tmp_path, epoch, RUN, TENSORS, history(epoch))
    return tmp_path


def test_what_was_written_is_read(two: Path) -> None:
    epoch, tensors, said = checkpoints.latest(two, RUN)
    assert (epoch, said) == (2, history(2))
    assert torch.equal(tensors["model.weight"], TENSORS["model.weight"])
    assert checkpoints.latest(two, "b" * 64) == (0, {}, {})


def test_no_flipped_bit_of_the_record_passes(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = two / "epoch-00002.json"
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            epoch, _, said = checkpoints.latest(two, RUN)
        assert (epoch, said) == (1, history(1)), f"byte {position}: {path.read_bytes()!r}"
        assert "epoch-00002.json" in caplog.text


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"losses": [0.5] * 3}, r"its losses are \[0\.5, 0\.5, 0\.5\]; rule: 2 finite numbers"),
        ({"losses": [0.5, math.nan]}, r"its losses are \[0\.5, nan\]; rule: 2 finite numbers"),
        ({"losses": [0.5, "x"]}, r"its losses are \[0\.5, 'x'\]; rule: 2 finite numbers"),
        ({"losses": None}, r"damaged"),
        ({"scores": []}, r"its scores are \[\]; rule: 2 finite numbers, scores from 0 to 1"),
        ({"scores": [0.5, 1.5]}, r"its scores are \[0\.5, 1\.5\]"),
        ({"scores": [-0.5, 0.5]}, r"its scores are \[-0\.5, 0\.5\]"),
    ],
)
def test_a_history_with_a_right_digest_is_checked(
    forged: dict[str, Any], message: str, two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.write(two, 2, RUN, TENSORS, {**history(2), **forged})
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest(two, RUN)[0] == 1
    assert caplog.text.count("epoch-00002.json: damaged") == 1
    assert re.search(message, caplog.text)


def test_an_epoch_is_that_of_its_file_and_of_the_run(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest(two, RUN, epochs=1)[0] == 1
        assert "its epoch is 2; rule: that of its name, from 1 to 1" in caplog.text
        for suffix in ("json", "safetensors"):
            (two / f"epoch-00002.{suffix}").rename(two / f"epoch-00003.{suffix}")
        assert checkpoints.latest(two, RUN)[0] == 1
    assert "epoch-00003.json: damaged (its epoch is 2" in caplog.text


def test_a_record_that_is_nested_without_end(two: Path) -> None:
    (two / "epoch-00002.json").write_text("[" * 200_000)
    assert checkpoints.latest(two, RUN)[0] == 1


def network() -> nn.Module:
    seed_all(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def finished(request: pytest.FixtureRequest, train_data: TrainData, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run's data, folder and optimizer, once it is over, its weights and its report."""
    set_threads(1)
    few = dataclasses.replace(train_data, inputs=train_data.inputs[:96], targets=train_data.targets[:96])
    folder = tmp_path_factory.mktemp("run")
    return few, folder, request.param, *run(few, folder, request.param)


def run(data: TrainData, folder: Path, optimizer: str) -> tuple[dict[str, Tensor], TrainReport]:
    model = network()
    settings = Teacher(epochs=3, batch_size=48, ema_decay=0.5, patience=3, optimizer=optimizer)  # type: ignore[arg-type]
    return model.state_dict(), train(model, data, settings, supervised(0.1), RunContext(folder, seed=5), Hooks(TOP1))


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda t, _: t.pop("model.1.weight"), r"model.1.weight is missing; rule: [8, 64]"),
        (lambda t, _: t.update({"model.2.running_var": torch.zeros(3)}), r"model.2.running_var is [3]; rule: [8]"),
        (lambda t, _: t.update({"model.9.bias": torch.zeros(3)}), r"model.9.bias is [3]; rule: not there"),
        (lambda t, _: t["model.4.bias"].fill_(math.nan), r"model.4.bias is not finite"),
        (lambda t, _: t.pop("averaged.module.1.weight"), r"averaged.module.1.weight is missing"),
        (lambda t, _: t.pop("best.1.weight"), r"best.1.weight is missing"),
        (lambda t, _: t.update({"optimizer.step.9": torch.zeros(2)}), r"optimizer.step.9 is [2]; rule: not there"),
        (lambda t, _: t.update({max(t): torch.zeros(7)}), r"is [7]; rule: "),
        (lambda _, h: h["scaler"].update(scale=2.0), r"its loss scale has ['scale']; rule: []"),
    ],
)
def test_tensors_with_a_right_digest_are_checked(
    forge: Forgery, message: str, finished: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, folder, optimizer, unbroken, report = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "epoch-00003.json").read_text())
    _, tensors, said = checkpoints.latest(tmp_path, record["run"])
    forge(tensors, said)
    checkpoints.write(tmp_path, 3, record["run"], tensors, said)
    with caplog.at_level(logging.WARNING):
        state, again = run(data, tmp_path, optimizer)
    assert again.resumed_from == 2
    assert message in caplog.text
    assert again.losses == report.losses
    assert all(torch.equal(state[k], unbroken[k]) for k in unbroken)


def test_what_is_whole_is_taken(finished: Any) -> None:
    data, folder, optimizer, unbroken, _ = finished
    state, again = run(data, folder, optimizer)
    assert again.resumed_from == 3
    assert all(torch.equal(state[k], unbroken[k]) for k in unbroken)
