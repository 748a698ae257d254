from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from dlx_deploy.config import Config, Data, Export, Package, Prune, Training
from dlx_deploy.devices.device import Device
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.order import Grounds
from dlx_deploy.nn.pruning.sparsity import sparsity_masks, two_four_modules
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, TrainReport
from dlx_deploy.nn.training.loop import train as as_ever
from dlx_deploy.nn.training.losses import LossFn
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model
from dlx_deploy.pipeline.stage import Job, Setup
from dlx_deploy.pipeline.view import seen_by
from dlx_deploy.stages.prune import STAGE, notes
from dlx_deploy.stages.support.pruning import metered
from dlx_deploy.stages.support.pruning import rehearsed as rehearsed_grounds
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import find_task, prepare

from ..devices.fake import FakeDevice
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


def test_rounds_remove_and_learn_in_turn_and_go_on_after_a_kill(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"rounds is 3 and epochs is 2; rule: a goal, and an epoch for each round"):
        Prune(rounds=3, epochs=2)
    with pytest.raises(ValueError, match=r"rounds is 2 and no channels go \(reduce_macs is 0\); rule: a goal, and"):
        Prune(rounds=2, reduce_macs=0.0, sparsity="2:4")
    params = Prune(epochs=3, rounds=2, batch_size=32, reduce_macs=0.3, round_to=1, reconstruct=True)
    seen: list[tuple[Path, int, int]] = []
    monkeypatch.setattr("dlx_deploy.nn.training.loop.train", noting(seen))
    for name in ("one", "again"):
        (tmp_path / name).mkdir()
        job = Job(params=params, inputs=inputs, out=tmp_path / name, threads=1, checkpoints=tmp_path / "kept")
        metrics = STAGE.run(job)
        assert metrics["macs_removed"] == pytest.approx(0.3, abs=0.02)
        assert metrics["macs_asked"] == 0.3
        assert {path.name for path in (tmp_path / name).iterdir()} == {"model", ".curves.json"}
    assert [(folder.name, epochs) for folder, epochs, _ in seen] == [("round-1", 1), ("round-2", 2)] * 2
    assert [resumed for *_, resumed in seen] == [0, 0, 1, 2]
    one, again = (load_model(tmp_path / name / "model") for name in ("one", "again"))
    assert one[1] == again[1]
    assert all(
        torch.equal(a, b) for a, b in zip(one[0].state_dict().values(), again[0].state_dict().values(), strict=True)
    )


def noting(seen: list[tuple[Path, int, int]]) -> Callable[..., TrainReport]:
    """``train`` that says where each run kept its checkpoints, of how many epochs, and after which it went on."""

    def train(
        model: nn.Module, data: TrainData, settings: Training, loss: LossFn, run: RunContext, hooks: Hooks
    ) -> TrainReport:
        report = as_ever(model, data, settings, loss, run, hooks)
        seen.append((run.checkpoints or Path(), settings.epochs, report.resumed_from))
        return report

    return train


def test_zeros_are_made_up_for(inputs: dict[str, Path], tmp_path: Path) -> None:
    before, _ = load_model(inputs["model"])
    answers = []
    for reconstruct in (False, True):
        out = tmp_path / str(reconstruct)
        out.mkdir()
        params = Prune(epochs=0, reduce_macs=0.0, sparsity="2:4", reconstruct=reconstruct)
        metrics = STAGE.run(Job(params=params, inputs=inputs, out=out, threads=1))
        assert metrics["sparse_zeros"] == pytest.approx(0.5, abs=0.01)
        after, _ = load_model(out / "model")
        assert all(not after.get_parameter(n)[~mask].any() for n, mask in sparsity_masks(before, params).kept.items())
        answers.append(after(torch.full((1, 1, 8, 8), 0.5)))
    assert not torch.equal(*answers)


def smaller(
    inputs: dict[str, Path], out: Path, params: Prune, device: Device | None = None
) -> tuple[dict[str, float], list[str]]:
    """The metrics and what was said, with a CPU as the target."""
    told: list[str] = []
    stage = metered(STAGE, params)
    job = Job(
        params=params,
        inputs=inputs,
        out=out,
        target=seen_by("prune", load_target("cpu-x86_64").profile, stage.uses),
        threads=1,
        device=device,
        progress=lambda done, total, text="": told.append(text),
    )
    return stage.run(job), told


def test_a_latency_is_estimated_where_no_target_can_be_reached(inputs: dict[str, Path], tmp_path: Path) -> None:
    params = Prune(epochs=0, reduce_macs=0.0, reduce_latency=0.001, round_to=32)
    metrics, told = smaller(inputs, tmp_path, params)
    assert metrics["latency_share_asked"] == 0.001
    assert 0 < metrics["latency_after_ms"] < metrics["latency_before_ms"]
    assert any("(prune.reduce_latency); float32, estimate (roofline, not measured)" in text for text in told)
    model, _ = load_model(tmp_path / "model")
    assert model.layer3[0].conv1.out_channels == 32  # type: ignore[index,union-attr]


def test_a_latency_is_timed_where_the_target_is_this_machine(inputs: dict[str, Path], tmp_path: Path) -> None:
    device = FakeDevice(ms={"before": 2.0, "now": 1.0})
    params = Prune(epochs=0, reduce_macs=0.0, max_latency_ms=1.5, round_to=32)
    metrics, told = smaller(inputs, tmp_path, params, device)
    assert device.asked == [("latencies", "before", "now")]
    assert metrics["latency_asked_ms"] == 1.5
    assert metrics["latency_before_ms"] == metrics["latency_after_ms"] == 1.0  # beside the first, at 2 ms, half of it
    assert any("measured on a board (a CPU)" in text for text in told)


def test_a_latency_looks_at_the_target_and_others_do_not(tmp_path: Path) -> None:
    assert metered(STAGE, Prune()) is STAGE
    stage = metered(STAGE, Prune(reduce_macs=0.0, reduce_latency=0.1))
    assert stage.measures_host
    assert "roofline" in stage.uses
    assert "onnxruntime" in stage.tools
    orin = seen_by("prune", load_target("jetson-orin-nano-8gb").profile, stage.uses)
    assert find_task("sequence-classification").inputs.exported(Export(), orin).length == "fixed"
    with pytest.raises(
        ConfigError, match=r"prune\.max_latency_ms is 0\.001, and on jetson\S* a single .* could have is 0\.00\d+"
    ):
        planned(tmp_path, "prune.reduce_macs=0", "prune.max_latency_ms=0.001")
    with pytest.raises(ConfigError, match=r"rounds is 2 and max_latency_ms is 3; rule: a goal that is a share"):
        planned(tmp_path, "prune.reduce_macs=0", "prune.max_latency_ms=3.0", "prune.rounds=2")


def test_a_latency_is_known_before_there_are_data_unless_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    latency = Config(prune=Prune(reduce_macs=0.0, reduce_latency=0.1))
    known = {}
    for target in ("jetson", "cpu-x86_64"):
        monkeypatch.setattr("dlx_deploy.stages.support.pruning.device_for", lambda _: FakeDevice())
        for config in (latency, Config()):
            setup = Setup(config.prune, {}, config, load_target(target).profile)
            known[target, config.prune.is_latency] = rehearsed_grounds(setup, config)
    assert known["cpu-x86_64", True] is None
    assert known["cpu-x86_64", False] == known["jetson", False] == Grounds()
    meter = known["jetson", True].meter  # type: ignore[union-attr]
    assert meter is not None
    assert "not measured" in meter.basis
