from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from dlx_deploy.config import Data, Prune
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.prune import STAGE
from dlx_deploy.tasks import prepare

from .support.planning import planned, rehearsed, texts


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("prune")
    prepare(Data(kind="digits", limit_train=64, limit_test=32), root / "data", 0)
    model = build_model("resnet8", {"width": 1}, 10, ImageInput(1, 8, 8))
    save_model(
        root / "model",
        model,
        Architecture(model="resnet8", arguments={"width": 1}, classes=10, input=ImageInput(1, 8, 8)),
    )
    return {"data": root / "data", "model": root / "model", "teacher": root / "model"}


def test_what_was_asked_and_reached_is_said(
    inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    params = Prune(epochs=0, reduce_macs=0.1, round_to=16)
    job = Job(params=params, inputs=inputs, out=tmp_path, threads=1, progress=lambda d, t, text="": told.append(text))
    with caplog.at_level(logging.WARNING, "dlx_deploy"):
        metrics = STAGE.run(job)
    assert metrics["macs_asked"] == 0.1
    assert metrics["macs_removed"] > 0.12  # one step of sixteen channels takes more
    removed = f"{metrics['macs_removed']:.3f} of the multiply-accumulates removed"
    said = f"{removed}, 0.1 asked (prune.reduce_macs); the smallest step"
    assert any("following the network" in text for text in told)
    assert any(text.startswith(said) for text in told)
    assert [r.message.startswith(said) for r in caplog.records if r.name.endswith("prune")] == [True]
    model, _ = load_model(tmp_path / "model")
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_what_is_near_enough_gives_no_warning(
    inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = Prune(epochs=0, reduce_macs=0.2, round_to=2)
    metrics = STAGE.run(Job(params=params, inputs=inputs, out=tmp_path, threads=1))
    assert metrics["macs_removed"] == pytest.approx(0.2, abs=0.02)
    assert not [r for r in caplog.records if r.name.endswith("prune")]
    tight = replace(params, trace_seconds=1e-9)
    with pytest.raises(StageFailed, match=r"within prune\.trace_seconds = 1e-09; the run had come to"):
        STAGE.run(Job(params=tight, inputs=inputs, out=tmp_path, threads=1))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["prune.schedule=cosine-restarts", "prune.restart_epochs=99"],
            r"prune\.restart_epochs is 99 and prune\.epochs is 25; .* not longer than training",
        ),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


def test_more_than_can_be_pruned_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"prune: prune\.reduce_macs is 0\.99; with round_to = 8, .* at most 0\.\d+"):
        rehearsed(tmp_path, "prune.reduce_macs=0.99")
    words = [*texts(tmp_path / "texts"), "distill.arguments={depth=1}"]
    rehearsed(tmp_path, *words, "prune.reduce_macs=0.2")
    with pytest.raises(StageFailed, match=r"prune: prune\.reduce_macs is 0\.99; with round_to = 8"):
        rehearsed(tmp_path, *words, "prune.reduce_macs=0.99")
