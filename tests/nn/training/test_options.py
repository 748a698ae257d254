"""Accumulation, averaging, early stopping, mixing, precision: what the loop offers beside plain SGD."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from dlx_deploy.config import Teacher
from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training import loop as training
from dlx_deploy.nn.training.augment import Mixer, rand_augmented
from dlx_deploy.nn.training.batches import Batch, ImageBatches, TokenFeed, TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import new_accelerator, seed_all
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, TrainReport, train
from dlx_deploy.nn.training.schedules import learning_rate

ONCE = Teacher(epochs=1, batch_size=48, shift_px=0, clip_norm=0.0, learning_rate=0.05, warmup_fraction=0.0)


def plain(normed: bool = False) -> nn.Module:
    seed_all(3)
    norm: list[nn.Module] = [nn.BatchNorm1d(16)] if normed else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *norm, nn.ReLU(), nn.Linear(16, 10))


def run(data: TrainData, settings: Teacher, folder: Path | None = None, **options: Any) -> tuple[Any, TrainReport]:
    model = plain(options.pop("normed", False))
    report = train(
        model, data, settings, options.pop("loss", supervised(0.0)), RunContext(folder, **options), Hooks(TOP1)
    )
    return model, report


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def changed(settings: Teacher, **changes: Any) -> Teacher:
    import msgspec

    return msgspec.structs.replace(settings, **changes)


@pytest.mark.parametrize("accumulate", [2, 3, 4, 7])
def test_accumulation_is_one_large_batch(train_data: TrainData, accumulate: int) -> None:
    """Also where the last window is short (288 images, 6 batches, windows of 4) and where sizes differ."""
    count = 250
    data = dataclasses.replace(train_data, inputs=train_data.inputs[:count], targets=train_data.targets[:count])
    seen: list[tuple[int, float]] = []

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        value = supervised(0.0)(logits, batch)
        seen.append((len(value), float(value.detach().sum())))
        return value

    model, _ = run(data, changed(ONCE, accumulate=accumulate, batch_size=48, momentum=0.0, weight_decay=0.0), loss=loss)
    expected = plain()
    source = ImageBatches(data, ONCE, torch.device("cpu"))
    seed = int(np.random.SeedSequence([0, 0]).generate_state(1, np.uint64)[0] >> 1)
    plan = [rows for (rows,) in source.plan(seed, 1)]
    windows = [np.concatenate(plan[i : i + accumulate]) for i in range(0, len(plan), accumulate)]
    for step, rows in enumerate(windows):
        images = data.feed(torch.from_numpy(data.inputs[rows].copy()))
        expected.zero_grad()
        nn.functional.cross_entropy(expected(images), torch.from_numpy(data.targets[rows])).backward()
        rate = training.learning_rate(step, len(windows), ONCE)
        with torch.no_grad():
            for p in expected.parameters():
                p -= rate * p.grad
    assert torch.allclose(weights(model), weights(expected), atol=1e-6)
    assert [n for n, _ in seen] == [len(rows) for rows in plan]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "learning_rate": 1e-3},
        {"ema_decay": 0.9, "normed": True},
        {"patience": 2, "learning_rate": 2.0, "epochs": 6},
        {"accumulate": 4, "mixup": 0.4, "cutmix": 1.0},
        {"rand_augment": 2, "schedule": "cosine-restarts", "restart_epochs": 1},
        {"precision": "bf16", "momentum": 0.0},
        {"optimizer": "adamw", "ema_decay": 0.5, "patience": 1, "accumulate": 2, "schedule": "one-cycle"},
    ],
    ids=lambda o: "-".join(o),
)
def test_every_option_resumes_to_the_same_bits(options: dict[str, Any], train_data: TrainData, tmp_path: Path) -> None:
    normed = options.pop("normed", False)
    settings = changed(ONCE, **{"epochs": 3, **options})
    whole, report = run(train_data, settings, normed=normed)
    calls = iter(range(1000))
    steps = 6 * settings.accumulate

    def dies(logits: Tensor, batch: Batch) -> Tensor:
        if next(calls) == 6 + 2:  # in the second epoch
            raise KeyboardInterrupt
        return supervised(0.0)(logits, batch)

    with pytest.raises(KeyboardInterrupt):
        run(train_data, settings, tmp_path, loss=dies, normed=normed)
    resumed, again = run(train_data, settings, tmp_path, normed=normed)
    assert again.resumed_from == 1, steps
    assert torch.equal(weights(resumed), weights(whole))
    assert all(torch.equal(a, b) for a, b in zip(resumed.buffers(), whole.buffers(), strict=True))
    assert (again.losses, again.scores, again.kept_epoch) == (report.losses, report.scores, report.kept_epoch)


def texts() -> TrainData:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    tokens = (rng.integers(1, 12, (90, 14)) + 12 * labels[:, None]).astype(np.int32)
    for row, length in zip(tokens, rng.integers(1, 15, 90), strict=True):
        row[length:] = 0
    return TrainData(tokens[:70], labels[:70], tokens[70:], labels[70:], TokenFeed(0), 3)


TEXTS = Teacher(epochs=4, max_tokens=64, accumulate=3, optimizer="adamw", learning_rate=0.01, weigh_by="tokens")


def sequence_model() -> nn.Module:
    seed_all(0)
    return build_model("transformer", {"depth": 1, "width": 16, "heads": 2}, 3, TokenInput(40, 14))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_texts_resume_to_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole = sequence_model()
    report = train(whole, texts(), TEXTS, supervised(0.0), RunContext(), Hooks(TOP1))
    assert report.last_score >= 0.9

    def dies(done: float, total: float, text: str = "") -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(sequence_model(), texts(), TEXTS, supervised(0.0), RunContext(tmp_path, progress=dies), Hooks(TOP1))
    resumed = sequence_model()
    again = train(resumed, texts(), TEXTS, supervised(0.0), RunContext(tmp_path), Hooks(TOP1))
    assert again.resumed_from == stop
    assert torch.equal(weights(resumed), weights(whole))
    assert again.losses == report.losses


def test_tokens_weigh_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's loss is the mean over its tokens, whatever its batches and their lengths."""
    data, seen = texts(), []
    settings = changed(TEXTS, accumulate=1000, epochs=1, learning_rate=1e-9)

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        value = supervised(0.0)(logits, batch)
        seen.append((value.detach(), (batch.inputs != 0).sum(1)))
        return value

    report = train(sequence_model(), data, settings, loss, RunContext(), Hooks(TOP1))
    losses, lengths = (torch.cat([s[i] for s in seen]) for i in (0, 1))
    assert len(losses) == 70
    assert report.losses[0] == pytest.approx(float((losses * lengths).sum() / lengths.sum()), rel=1e-5)


def test_images_larger_than_memory_are_read_from_their_map(
    train_data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(ONCE, shift_px=1, flip=True)
    held, report = run(train_data, settings)
    monkeypatch.setattr("dlx_deploy.nn.training.batches.HELD_BYTES", 0)
    mapped, again = run(train_data, settings)
    assert torch.equal(weights(held), weights(mapped))
    assert again.losses == report.losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_is_clipped_to_its_norm(accumulate: int, train_data: TrainData) -> None:
    """One step of plain SGD: the change of the weights is the gradient, so its length is rate times ``clip_norm``."""
    few = dataclasses.replace(train_data, inputs=train_data.inputs[:96], targets=train_data.targets[:96])
    once = changed(ONCE, batch_size=96 // accumulate, accumulate=accumulate, momentum=0.0, weight_decay=0.0)
    start = weights(plain())
    free = weights(run(few, once)[0]) - start
    rate = learning_rate(0, 1, once)
    norm = float(free.norm()) / rate
    limit = norm / 4
    clipped = weights(run(few, changed(once, clip_norm=limit))[0]) - start
    assert float(clipped.norm()) == pytest.approx(rate * limit, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(clipped, free, dim=0) > 0.9999  # its direction stays
    wide = weights(run(few, changed(once, clip_norm=norm * 2))[0]) - start
    assert torch.equal(wide, free)


def test_averaged_weights_are_what_is_kept(train_data: TrainData) -> None:
    """With a decay of d the kept weights are d * kept + (1 - d) * new after every step, by hand."""
    seen: list[Tensor] = []
    model = plain()

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        seen.append(weights(model))
        return supervised(0.0)(logits, batch)

    train(model, train_data, changed(ONCE, ema_decay=0.8), loss, RunContext(), Hooks(TOP1))
    unaveraged, _ = run(train_data, ONCE)
    seen.append(weights(unaveraged))
    kept = seen[1]
    for new in seen[2:]:
        kept = 0.8 * kept + 0.2 * new
    assert torch.allclose(weights(model), kept, atol=1e-6)
    assert not torch.allclose(weights(model), weights(unaveraged), atol=1e-4)


def test_early_stopping_keeps_the_best_epoch(train_data: TrainData) -> None:
    settings = changed(ONCE, epochs=40, patience=2, learning_rate=3.0, momentum=0.95)
    model, report = run(train_data, settings)
    best = int(np.argmax(report.scores)) + 1
    assert report.epochs == len(report.scores) == best + 2 < 40
    assert report.kept_epoch == best
    again = training.evaluate(model, train_data.validation_inputs, train_data.validation_targets, train_data.feed, TOP1)
    assert again == report.last_score == report.best_score


def test_bf16_computes_in_bf16(train_data: TrainData) -> None:
    kinds = set()

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            kinds.add(out.dtype)
            return out

    seed_all(0)
    model = nn.Sequential(nn.Flatten(), Watched(64, 10))
    report = train(
        model, train_data, changed(ONCE, precision="bf16", epochs=3), supervised(0.0), RunContext(), Hooks(TOP1)
    )
    assert torch.bfloat16 in kinds
    assert model[1].weight.dtype == torch.float32
    assert list(report.losses) == sorted(report.losses, reverse=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine trains in FP16")
def test_fp16_without_a_gpu(train_data: TrainData) -> None:
    with pytest.raises(EnvironmentMissing, match=r"teacher\.precision is 'fp16', and there is no GPU here.*use 'bf16'"):
        run(train_data, changed(ONCE, precision="fp16"))


def test_loss_scaling_passes_over_overflow_and_is_resumed(
    train_data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens on a GPU in FP16, on the CPU, where Accelerate refuses it: the first scales are too large."""

    def scaled(settings: Teacher) -> Any:
        accelerator = new_accelerator(settings)
        accelerator.scaler = GradScaler("cpu", init_scale=2.0**24, growth_interval=10_000)
        accelerator.native_amp = True
        accelerator.state._mixed_precision = "fp16"
        return accelerator

    monkeypatch.setattr(training, "new_accelerator", scaled)
    settings = changed(ONCE, epochs=3)
    model, report = run(train_data, settings, tmp_path / "a")
    assert torch.isfinite(weights(model)).all()
    assert report.losses[-1] < report.losses[0]
    scale = training.checkpoints.latest(tmp_path / "a", training._digest(settings, RunContext(), 288, TOP1.name))[2][
        "scaler"
    ]
    assert 0 < scale["scale"] < 2.0**24
    for name in ("epoch-00003.json", "epoch-00003.safetensors"):
        (tmp_path / "a" / name).unlink()
    resumed, again = run(train_data, settings, tmp_path / "a")
    assert again.resumed_from == 2
    assert torch.equal(weights(resumed), weights(model))


def test_mixing_gives_distributions() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 6, 6), torch.arange(8) % 3
    same, unmixed = Mixer(0.0, 0.0, 3)(images, labels)
    assert same is images
    assert unmixed is labels
    for alphas in ((1.0, 0.0), (0.0, 1.0)):
        mixed, soft = Mixer(*alphas, 3)(images, labels)
        assert soft.shape == (8, 3)
        assert torch.allclose(soft.sum(1), torch.ones(8))
        assert ((soft > 0).sum(1) == 2).any()
        assert not torch.equal(mixed, images)


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_changes_images_and_keeps_their_form(channels: int) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 12, 12, channels), dtype=torch.uint8)
    assert rand_augmented(images, 0) is images
    changed_images = rand_augmented(images, 2)
    assert (changed_images.shape, changed_images.dtype) == (images.shape, torch.uint8)
    assert (changed_images != images).any()


def test_tensorboard_logs(train_data: TrainData, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, report = run(train_data, changed(ONCE, epochs=2), logs=tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.value for e in events.Scalars("loss/epoch")] == pytest.approx(report.losses)
    assert [e.value for e in events.Scalars("top1/validation")] == pytest.approx(report.scores)
