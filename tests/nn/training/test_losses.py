from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlx_deploy.config import Distill
from dlx_deploy.nn.training.augment import seen_in
from dlx_deploy.nn.training.batches import Batch, ImageFeed, TrainData
from dlx_deploy.nn.training.classes import class_blend, cross_entropy, distillation_loss, supervised
from dlx_deploy.nn.training.dense import pixel_blend
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.training.losses import distilled, distilled_from, undistilled
from dlx_deploy.nn.training.views import Views

temperatures = st.floats(0.5, 20.0)


def batch_of(inputs: torch.Tensor, labels: torch.Tensor) -> Batch:
    return Batch(inputs, labels, torch.arange(len(labels)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(st.integers(0, 1000), temperatures, st.floats(0.0, 1.0))
def test_distillation_is_the_formula(seed: int, temperature: float, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher, labels = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    kl = (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    ce = -np.log(softmax(student)[np.arange(4), labels]).mean()
    seen = distillation_loss(
        *map(torch.from_numpy, (student, teacher, labels)), Distillation(temperature, alpha)
    ).mean()
    assert seen.item() == pytest.approx(alpha * temperature**2 * kl + (1 - alpha) * ce, abs=1e-9)


@given(st.integers(0, 1000), temperatures)
def test_a_perfect_student_has_no_soft_loss(seed: int, temperature: float) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.int64)
    assert distillation_loss(logits, logits, labels, Distillation(temperature, 1.0)).abs().max() < 1e-12


def test_answers_given_before_are_those_of_the_teacher() -> None:
    torch.manual_seed(0)
    teacher, images = nn.Linear(6, 3), torch.randn(8, 6)
    rows = torch.tensor([5, 0, 7])
    batch = Batch(images[rows], torch.tensor([0, 2, 1]), rows)
    answers = teacher(images).detach().numpy()
    logits = torch.randn(3, 3)
    live = distilled(teacher, class_blend(Distillation(3.0, 0.6)))(logits, batch)
    assert torch.allclose(
        distilled_from(answers, class_blend(Distillation(3.0, 0.6)), 8)(logits, batch), live, atol=1e-6
    )


def test_answers_in_views_are_those_of_the_teacher_to_what_the_student_saw() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 6, 5, 1), dtype=torch.uint8)
    feed, views, settings = ImageFeed([0.5], [0.3]), Views(shift_px=1, flip=True), Distill(batch_size=4, flip=True)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    answers = np.concatenate([predict_logits(teacher, images.numpy(), seen_in(feed, views, i)) for i in range(18)])
    data = TrainData(images.numpy(), np.arange(8) % 3, images.numpy(), np.arange(8) % 3, feed, 3)
    source, blend = feed.source(data, settings, torch.device("cpu")), class_blend(Distillation(3.0, 0.6))
    seen: set[int] = set()
    for seed in range(12):
        for step in source.plan(seed, 1):
            batch = source.batch(step, 0, torch.Generator().manual_seed(seed))
            assert batch.views is not None
            seen |= set(batch.views.tolist())
            logits = torch.randn(4, 3)
            live, kept = distilled(teacher, blend)(logits, batch), distilled_from(answers, blend, 8)(logits, batch)
            assert torch.allclose(kept, live, atol=1e-6)
    assert seen == set(range(18))


def test_several_teachers_are_asked_together_live_or_before() -> None:
    torch.manual_seed(0)
    teachers, images = [nn.Linear(6, 3), nn.Linear(6, 3)], torch.randn(8, 6)
    rows, logits = torch.tensor([5, 0, 7]), torch.randn(3, 3)
    batch = Batch(images[rows], torch.tensor([0, 2, 1]), rows)
    blend = class_blend(Distillation(3.0, 1.0))
    first, second = (teacher(images).detach().numpy() for teacher in teachers)
    live = distilled(teachers[0], blend, teachers[1:])(logits, batch)
    assert torch.allclose(distilled_from(first, blend, 8, [second])(logits, batch), live, atol=1e-6)
    mean = sum(torch.softmax(torch.from_numpy(x)[rows] / 3, 1) for x in (first, second)) / 2
    kl = (mean * (mean.log() - torch.log_softmax(logits / 3, 1))).sum(1)
    assert torch.allclose(live, 9 * kl, atol=1e-5)
    assert not any(teacher.training for teacher in teachers)


def test_mixed_labels_are_distributions() -> None:
    logits, soft = torch.randn(2, 3), torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]])
    expected = -(soft * torch.log_softmax(logits, 1)).sum(1)
    assert torch.allclose(cross_entropy(logits, soft), expected)


def test_label_smoothing_moves_mass_to_every_class() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log_p = torch.log_softmax(logits, 1)[0]
    assert cross_entropy(logits, labels, 0.3).item() == pytest.approx(-(0.8 * log_p[0] + 0.1 * log_p[1:].sum()).item())
    assert supervised(0.3)(logits, batch_of(torch.empty(1), labels)) == cross_entropy(logits, labels, 0.3)


def test_the_teacher_sees_the_students_images_and_learns_nothing() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.randn(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
    statistics = teacher[2].running_mean.clone()
    loss = distilled(teacher, class_blend(Distillation(4.0, 0.7)))(student(images), batch_of(images, labels)).mean()
    expected = distillation_loss(student(images), teacher(images), labels, Distillation(4.0, 0.7))
    assert loss.item() == pytest.approx(expected.mean().item())
    loss.backward()
    assert student[1].weight.grad is not None
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(teacher[2].running_mean, statistics)


def test_without_a_teacher_the_labels_alone_count() -> None:
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 1])
    loss = undistilled(class_blend(Distillation(4.0, 0.0)))(logits, batch_of(torch.empty(4), labels))
    (seen,) = torch.autograd.grad(loss.sum(), logits)
    (wanted,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    assert torch.allclose(seen, wanted)
    assert torch.allclose(loss, cross_entropy(logits, labels))


@pytest.mark.parametrize(("done", "share"), [(0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (1.0, 1.0)])
def test_the_teacher_s_term_rises_and_that_of_the_labels_stays(done: float, share: float) -> None:
    torch.manual_seed(0)
    logits, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    batch = Batch(torch.empty(4), labels, torch.arange(4), done=done)
    hard = 0.3 * cross_entropy(logits, labels)
    soft = class_blend(Distillation(4.0, 0.7))(logits, teacher, batch) - hard
    seen = class_blend(Distillation(4.0, 0.7, warmup=0.4))(logits, teacher, batch)
    assert torch.allclose(seen, share * soft + hard, atol=1e-6)
    maps, answers = logits.view(4, 3, 1, 1), teacher.view(4, 3, 1, 1)
    pixels = replace(batch, targets=labels.view(4, 1, 1))
    assert torch.allclose(
        pixel_blend(Distillation(4.0, 0.7, warmup=0.4), False)(maps, answers, pixels), seen, atol=1e-6
    )
