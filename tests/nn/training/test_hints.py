"""Layers held to a teacher's: the formulas in numpy, the projector that learns, and nothing that stays behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.config import Distill
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import Batch, TrainData
from dlx_deploy.nn.training.classes import TOP1, class_blend
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.hints import Hint, Hinted, HintPlan, attention_transfer, projected, relation_transfer
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, train

SPEC = ImageInput(1, 8, 8)
BLEND = class_blend(Distillation(4.0, 0.9))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def network(width: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(width * 16, 10))


def plan(*hints: str, method: str = "projector", weight: float = 1.0) -> HintPlan:
    return HintPlan(tuple(map(Hint.of, hints)), method, weight)


def test_names_are_one_or_two() -> None:
    assert Hint.of("layer2") == Hint("layer2", "layer2")
    assert Hint.of("layer1 = stages.3") == Hint("layer1", "stages.3")


def test_attention_maps_are_sums_of_squares_of_length_one() -> None:
    ours, theirs = drawn(2, 3, 4, 5), drawn(2, 7, 4, 5)
    maps = [(x.numpy().astype(float) ** 2).sum(axis=1).reshape(2, 20) for x in (ours, theirs)]
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    assert attention_transfer(ours, theirs, None).numpy() == pytest.approx(((a - b) ** 2).sum(axis=1), rel=1e-5)
    assert attention_transfer(ours, 3 * ours, None).abs().max() < 1e-6
    zeros = torch.zeros(2, 3, 4, 5, requires_grad=True)
    attention_transfer(zeros, theirs, None).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_relations_are_of_the_tokens_that_are_real() -> None:
    ours, theirs = drawn(2, 5, 6), drawn(2, 5, 9)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = []
    for x, y, n in zip(ours.numpy().astype(float), theirs.numpy().astype(float), (5, 3), strict=True):
        p, q = (np.exp(z[:n] @ z[:n].T / np.sqrt(z.shape[1])) for z in (y, x))
        p, q = (z / z.sum(axis=1, keepdims=True) for z in (p, q))
        expected.append((p * np.log(p / q)).sum(axis=1).mean())
    seen = relation_transfer(ours, theirs, real)
    assert seen.numpy() == pytest.approx(np.array(expected), rel=1e-4)
    padded = ours.clone()
    padded[1, 3:] = 1e3
    assert torch.allclose(relation_transfer(padded, theirs, real), seen)
    assert projected(padded, ours, real)[1] == 0
    assert projected(padded, ours, None)[1] > 0
    maps = attention_transfer(padded, ours, real)
    assert maps.abs().max() < 1e-6


def test_a_projection_is_compared_by_its_mean_square() -> None:
    ours, theirs = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4) + 1
    assert projected(ours, theirs, None).numpy() == pytest.approx(((ours - theirs) ** 2).mean(dim=(1, 2, 3)).numpy())


def test_the_loss_is_the_blend_and_the_weighted_mean_over_hints() -> None:
    student, teacher, images = network(4), network(6, 1), drawn(5, 1, 8, 8)
    given = plan("0", "0.0=0.1", weight=3.0)
    hinted = Hinted(student, given, given.check(student, teacher, SPEC), seed=0).train()
    batch = Batch(images, torch.arange(5), torch.arange(5))
    answer = hinted(images)
    loss = hinted.loss(teacher, BLEND, SPEC)(answer, batch)
    middle = [student[0][0](images), student[0](images)]
    theirs = [teacher[0][1](teacher[0][0](images)), teacher[0](images)]
    first, second = (
        projected(layer(x), y, None)
        for layer, x, y in zip(hinted.projectors, (middle[1], middle[0]), (theirs[1], theirs[0]), strict=True)
    )
    assert torch.allclose(loss, BLEND(answer, teacher(images), batch) + 3 * (first + second) / 2, atol=1e-5)
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in hinted.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(m._forward_hooks for m in (*student.modules(), *teacher.modules()))
    assert torch.equal(hinted.eval()(images), student.eval()(images))


@pytest.mark.parametrize("method", ["projector", "attention"])
def test_hints_train_the_student_alone_and_go_on_after_a_kill_to_the_same_bits(
    train_data: TrainData, tmp_path: Path, method: str
) -> None:
    given, settings = plan("0", method=method), Distill(epochs=2, batch_size=64, learning_rate=0.05)

    def run(epochs: int, checkpoints: Path | None) -> nn.Module:
        student, teacher = network(4), network(6, 1)
        hinted = Hinted(student, given, given.check(student, teacher, SPEC), seed=3)
        hooks = Hooks(TOP1, prepare=lambda _: hinted)

        class Killed(Exception):
            pass

        def watch(done: float, total: float, text: str = "") -> None:
            if done >= epochs and epochs < settings.epochs:
                raise Killed

        context = RunContext(checkpoints=checkpoints, seed=1, progress=watch)
        with contextlib.suppress(Killed):
            train(student, train_data, settings, hinted.loss(teacher, BLEND, SPEC), context, hooks)
        return student

    whole = run(2, None)
    assert set(whole.state_dict()) == set(network(4).state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in whole.modules())
    run(1, tmp_path)
    assert list(tmp_path.iterdir())
    resumed = run(2, tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), network(4).parameters(), strict=True))


def test_layers_of_transformers() -> None:
    spec = TokenInput(50, 12, 0)
    student, teacher = (build_model("transformer", {"width": w, "depth": 1, "heads": 2}, 3, spec) for w in (16, 24))
    given = plan("layers.0.attention.query", method="relation")
    hinted = Hinted(student, given, given.check(student, teacher, spec), seed=0).train()
    tokens = spec.drawn(4)
    answer = hinted(tokens)
    loss = hinted.loss(teacher, BLEND, spec)(answer, Batch(tokens, torch.tensor([0, 1, 2, 0]), torch.arange(4)))
    assert (loss > BLEND(answer, teacher(tokens), Batch(tokens, torch.tensor([0, 1, 2, 0]), torch.arange(4)))).all()
    (gradient,) = torch.autograd.grad(loss.sum(), student.layers[0].attention.query.weight)  # type: ignore[union-attr]
    assert gradient.isfinite().all()
    assert not [*hinted.projectors.parameters()]


class Silent(nn.Module):
    """A layer of no features, and one that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.names, self.unused = network(4), nn.Identity(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.names("words")
        given: Tensor = self.body(x)
        return given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (plan("bodi"), r"distill\.hints: 'bodi' is no layer of the student; nearest valid name: 'body'"),
        (plan("body=xyz"), r"distill\.hints: 'xyz' is no layer of the teacher; valid names: body, body\.0, "),
        (
            plan("unused"),
            r"the student's layer 'unused' gives no tensor of features, or is not used; rule: a layer that",
        ),
        (plan("names"), r"the student's layer 'names' gives no tensor"),
        (
            plan("body.0.0=body.0"),
            r"'body\.0\.0' gives \[2, 4, 8, 8\], the teacher's 'body\.0' \[2, 4, 4, 4\] for two sa",
        ),
        (
            plan("body.0=body.1"),
            r"gives \[2, 4, 4, 4\], the teacher's 'body\.1' \[2, 64\] .* layers of the same resolution",
        ),
        (plan("body.0", method="relation"), r"rule: \[N, length, width\] with distill\.hint_method = 'relation'"),
        (plan("body.1", method="attention"), r"rule: \[N, length, width\] or \[N, channels, height, width\] with"),
    ],
)
def test_what_cannot_be_compared_is_said(given: HintPlan, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given.check(Silent(), Silent(), SPEC)


def test_of_many_layers_a_message_names_few() -> None:
    many = nn.Sequential(*(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()) for _ in range(60)))
    with pytest.raises(ConfigError, match=r"'zz' is no layer of the student") as refused:
        plan("zz").check(many, many, SPEC)
    assert len(str(refused.value)) < 300
