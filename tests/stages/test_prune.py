from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from dlx_deploy.config import Config, Data, Package, Prune
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.sparsity import sparsity_masks, two_four_modules
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.prune import STAGE, notes
from dlx_deploy.targets import load_target
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


@pytest.mark.parametrize("sparsity", ["2:4", "unstructured"])
def test_zeros_stay_zero_through_the_fine_tune(inputs: dict[str, Path], tmp_path: Path, sparsity: str) -> None:
    params = Prune(epochs=1, batch_size=32, reduce_macs=0.0, sparsity=sparsity)  # type: ignore[arg-type]
    before, _ = load_model(inputs["model"])
    (tmp_path / "kept").mkdir()
    metrics = STAGE.run(Job(params=params, inputs=inputs, out=tmp_path, threads=1, checkpoints=tmp_path / "kept"))
    after, architecture = load_model(tmp_path / "model")
    assert not architecture.pruned
    assert "macs_removed" not in metrics
    assert metrics["sparse_zeros"] == pytest.approx(0.5, abs=0.01)
    masks = sparsity_masks(before, params)
    assert metrics["sparse_layers"] == len(masks.kept)
    for name, mask in masks.kept.items():
        learned = after.get_parameter(name)
        assert not learned[~mask].any()
        assert not torch.equal(learned[mask], before.get_parameter(name)[mask])  # it did learn


def test_channels_go_before_single_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    params = Prune(epochs=0, reduce_macs=0.2, round_to=4, sparsity="2:4")
    metrics = STAGE.run(Job(params=params, inputs=inputs, out=tmp_path, threads=1))
    model, architecture = load_model(tmp_path / "model")
    assert architecture.pruned
    assert metrics["macs_removed"] == pytest.approx(0.2, abs=0.05)
    assert len(two_four_modules(model)) == metrics["sparse_layers"]


def test_what_zeros_are_good_for_is_said() -> None:
    orin, tx2 = load_target("jetson-orin-nano-8gb").profile, load_target("jetson-tx2").profile
    two_four = Config(prune=Prune(sparsity="2:4"))
    metrics = {"sparse_zeros": 0.5, "sparse_layers": 3.0}
    assert notes(two_four, orin, {}, metrics) == []
    (said,) = notes(two_four, tx2, {}, metrics)
    assert said == "prune.sparsity is '2:4', and jetson-tx2 has no kernels that compute it faster"
    scattered = Config(prune=Prune(sparsity="unstructured"))
    (said,) = notes(scattered, orin, {}, metrics)
    assert "50.0 % of the weights of 3 layers are zero" in said
    assert (
        "nothing is faster: what it saves is the size of a package that is compressed (package.deflate = true)" in said
    )
    assert notes(replace(scattered, package=Package(deflate=True)), orin, {}, metrics)[0].endswith("of a package")
    assert notes(Config(), orin, {}, {}) == []


def test_nothing_that_can_be_sparse_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sparsity_ratio is 0\.3 and sparsity '2:4'; rule: with 'unstructured'"):
        Prune(sparsity="2:4", sparsity_ratio=0.3)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(1, num_classes, 8), nn.Flatten())\n"
    )
    network = [f"teacher.model={tmp_path / 'net.py'}:make", "teacher.arguments={}", "distill.enabled=false"]
    with pytest.raises(StageFailed, match=r"prune\.sparsity is '2:4', and no layer of this Sequential can be so"):
        rehearsed(tmp_path, *network, "prune.reduce_macs=0", "prune.sparsity='2:4'")


def test_one_goal_is_asked_for() -> None:
    with pytest.raises(
        ValueError, match=r"reduce_macs is 0\.2 and reduce_parameters is 0\.4; rule: one goal; set reduce_macs = 0"
    ):
        Prune(reduce_parameters=0.4)
    assert Prune(reduce_macs=0.0, reduce_parameters=0.4).reduces
    assert not Prune(reduce_macs=0.0).reduces


def test_importance_is_of_the_training_split_and_the_goal_of_the_parameters(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    kept = []
    for importance in ("l2", "taylor"):
        params = Prune(epochs=0, reduce_macs=0.0, reduce_parameters=0.3, round_to=2, importance=importance)  # type: ignore[arg-type]
        (tmp_path / importance).mkdir()
        metrics = STAGE.run(Job(params=params, inputs=inputs, out=tmp_path / importance, threads=1))
        assert metrics["parameters_asked"] == 0.3
        assert metrics["parameters_removed"] == pytest.approx(0.3, abs=0.02)
        kept.append(load_model(tmp_path / importance / "model")[0].state_dict())
    assert any(
        not torch.equal(a, b) for a, b in zip(kept[0].values(), kept[1].values(), strict=True) if a.shape == b.shape
    )
