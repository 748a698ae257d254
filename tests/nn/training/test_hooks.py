"""What a task or a method adds to the loop, seen from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from dlx_deploy.config import Teacher
from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import evaluate, predict_logits
from dlx_deploy.nn.training.loop import RunContext, train

SETTINGS = Teacher(epochs=2, batch_size=64, learning_rate=0.05, arguments={})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Recall:
    """The mean over classes of the share that is right: no mean over samples."""

    name, title = "recall", "mean recall"

    def total(self, outputs: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        right = outputs.argmax(axis=1) == targets
        return np.stack([np.bincount(targets[right], minlength=10), np.bincount(targets, minlength=10)]).astype(float)

    def score(self, total: npt.NDArray[np.float64], count: float) -> float:
        return float((total[0] / np.maximum(total[1], 1)).mean())


def test_weights_are_projected_after_every_update(train_data: TrainData) -> None:
    steps: list[int] = []

    def project(model: nn.Module, step: int) -> None:
        steps.append(step)
        with torch.no_grad():
            next(iter(model.parameters()))[:, ::2] = 0

    model = network()
    train(model, train_data, SETTINGS, supervised(0.0), RunContext(), Hooks(TOP1, after_update=project))
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 2
    weight = model[1].weight  # type: ignore[index]
    assert (weight[:, ::2] == 0).all()
    assert (weight[:, 1::2] != 0).any()


def test_averaged_weights_are_projected_too(train_data: TrainData) -> None:
    def project(model: nn.Module, step: int) -> None:
        with torch.no_grad():
            next(iter(model.parameters()))[:, ::2] = 0

    model = network()
    project(model, 0)
    settings = replace(SETTINGS, ema_decay=0.5)
    train(model, train_data, settings, supervised(0.0), RunContext(), Hooks(TOP1, after_update=project))
    assert (model[1].weight[:, ::2] == 0).all()  # type: ignore[index]


def test_a_score_that_is_no_number_is_refused(train_data: TrainData) -> None:
    class Nothing(Recall):
        def score(self, total: npt.NDArray[np.float64], count: float) -> float:
            return float("nan")

    with pytest.raises(StageFailed, match=r"the validation mean recall is nan; rule: a finite number"):
        train(network(), train_data, SETTINGS, supervised(0.0), RunContext(), Hooks(metric=Nothing()))


def test_a_network_is_prepared_once_and_keeps_its_parameters(train_data: TrainData) -> None:
    prepared: list[nn.Module] = []

    class Halved(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x / 2)

    def halve(model: nn.Module) -> nn.Module:
        prepared.append(model)
        return Halved(model)

    model, plain = network(), network()
    train(model, train_data, SETTINGS, supervised(0.0), RunContext(), Hooks(TOP1, prepare=halve))
    train(plain, train_data, SETTINGS, supervised(0.0), RunContext(), Hooks(TOP1))
    assert prepared == [model]
    assert not torch.equal(model[1].weight, network()[1].weight)  # type: ignore[index]
    assert not torch.equal(model[1].weight, plain[1].weight)  # type: ignore[index]


def test_a_metric_of_one_s_own_is_what_is_watched(train_data: TrainData) -> None:
    told: list[str] = []

    def watch(done: float, total: float, text: str = "") -> None:
        told.append(text)

    model = network()
    report = train(model, train_data, SETTINGS, supervised(0.0), RunContext(progress=watch), Hooks(metric=Recall()))
    d = train_data
    logits = predict_logits(model, d.validation_inputs, d.feed)
    right = logits.argmax(axis=1) == d.validation_targets
    expected = np.mean([right[d.validation_targets == k].mean() for k in np.unique(d.validation_targets)])
    assert report.last_score == pytest.approx(expected, abs=0.02)
    assert report.last_score != pytest.approx(right.mean(), abs=1e-6)
    assert any(f"mean recall {report.last_score:.2%}" in text for text in told)


@pytest.mark.parametrize("part", [1, 7, 4096])
def test_totals_add_up(train_data: TrainData, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    model, d = network(), train_data
    monkeypatch.setattr("dlx_deploy.nn.training.inference.BATCH", part)
    logits = predict_logits(model, d.validation_inputs, d.feed)
    share = float((logits.argmax(axis=1) == d.validation_targets).mean())
    assert evaluate(model, d.validation_inputs, d.validation_targets, d.feed, TOP1) == pytest.approx(share)
