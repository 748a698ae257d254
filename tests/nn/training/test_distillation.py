"""What students are held to, against the papers' formulas in numpy's float64, and where a softmax is 0 or 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx_deploy.config import DIST, DKD, HINTON, METHODS
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.classes import class_blend, distillation_loss
from dlx_deploy.nn.training.dense import pixel_distillation
from dlx_deploy.nn.training.distillation import Distillation

Floats = npt.NDArray[np.float64]
ALL = [*(Distillation(4.0, 1.0, method) for method in METHODS), Distillation(2.0, 1.0, DKD, standardize=True)]


def drawn(test: Callable[[int, float, float], None]) -> Callable[[], None]:
    """``test`` with seeds, temperatures and values of beta."""
    return settings(max_examples=30)(given(st.integers(0, 10_000), st.floats(0.5, 8.0), st.floats(0.1, 8.0))(test))


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def kl(p: Floats, q: Floats) -> Floats:
    return np.asarray((p * np.log(p / q)).sum(axis=-1))


def some(seed: int, rows: int = 6, classes: int = 5) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, classes)) * 2, rng.normal(size=(rows, classes)) * 3, rng.integers(0, classes, rows)


def soft(student: Floats, teacher: Floats, labels: npt.NDArray[np.int64], recipe: Distillation) -> Floats:
    """The soft part alone, without T^2."""
    assert recipe.alpha == 1.0
    seen = distillation_loss(*map(torch.from_numpy, (student, teacher, labels)), recipe)
    return np.asarray(seen.numpy() / recipe.temperature**2)


@drawn
def test_decoupled_distillation_is_the_formula(seed: int, temperature: float, beta: float) -> None:
    student, teacher, labels = some(seed)
    expected = []
    for z_s, z_t, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(z_t / temperature), softmax(z_s / temperature)
        target = kl(np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]]))
        rest_t, rest_s = (softmax(np.delete(z, label) / temperature) for z in (z_t, z_s))
        expected.append(target + beta * kl(rest_t, rest_s))
    seen = soft(student, teacher, labels, Distillation(temperature, 1.0, DKD, beta))
    assert seen == pytest.approx(np.array(expected), abs=1e-9)


@drawn
def test_hintons_is_the_decoupled_one_whose_others_weigh_what_the_teacher_leaves_them(
    seed: int, temperature: float, beta: float
) -> None:
    """Zhao et al. 2022, equation 5."""
    student, teacher, labels = some(seed, rows=1)
    left = 1 - softmax(teacher / temperature)[0, labels[0]]
    both = [soft(student, teacher, labels, Distillation(temperature, 1.0, *m)) for m in ((HINTON,), (DKD, left))]
    assert both[0] == pytest.approx(both[1], abs=1e-9)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation, where variances of probabilities under 1e-8 count for nothing."""
    (var_a, cov), (_, var_b) = np.cov(a, b, bias=True)
    return float(cov / np.sqrt((var_a + 1e-8) * (var_b + 1e-8)))


@drawn
def test_relations_are_correlations(seed: int, temperature: float, beta: float) -> None:
    student, teacher, labels = some(seed)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    inter = np.array([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - pearson(a, b) for a, b in zip(p.T, q.T, strict=True)])
    seen = soft(student, teacher, labels, Distillation(temperature, 1.0, DIST, beta))
    assert seen == pytest.approx(inter + beta * intra, abs=1e-3)


def test_what_a_paper_takes_where_nothing_is_said() -> None:
    student, teacher, labels = some(3)
    for method, beta in ((DKD, 2.0), (DIST, 1.0)):
        usual = soft(student, teacher, labels, Distillation(4.0, 1.0, method))
        assert (usual == soft(student, teacher, labels, Distillation(4.0, 1.0, method, beta))).all()
        assert (usual != soft(student, teacher, labels, Distillation(4.0, 1.0, method, beta + 1))).all()


@drawn
def test_standardized_logits_are_z_scores(seed: int, temperature: float, beta: float) -> None:
    student, teacher, labels = some(seed)
    z_s, z_t = ((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True) for z in (student, teacher))
    plain = soft(z_s, z_t, labels, Distillation(temperature, 1.0))
    recipe = Distillation(temperature, 1.0, standardize=True)
    assert soft(student, teacher, labels, recipe) == pytest.approx(plain, abs=1e-4)  # but for the epsilon
    # How large a network's logits are, and where their zero is, says nothing.
    assert soft(student * 7 + 2, teacher * 0.3 - 9, labels, recipe) == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("recipe", ALL)
@pytest.mark.parametrize("classes", [2, 6])
def test_values_and_gradients_are_finite_whatever_the_logits(recipe: Distillation, classes: int) -> None:
    rows = torch.tensor(
        [[0.0] * classes, [1e4] + [-1e4] * (classes - 1), [-1e4] + [1e4] * (classes - 1), [3e38] * classes]
    )
    student, teacher = rows.repeat(4, 1).requires_grad_(True), rows.repeat_interleave(4, dim=0)
    if recipe.standardize:  # the square of 3e38 is no float32
        student, teacher = (x.detach().clamp(-1e4, 1e4).requires_grad_(x.requires_grad) for x in (student, teacher))
    losses = distillation_loss(student, teacher, torch.zeros(16, dtype=torch.int64), recipe)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= -1e-4).all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("recipe", ALL)
def test_a_perfect_student_has_nothing_to_learn_and_a_step_down_the_gradient_helps_another(
    recipe: Distillation,
) -> None:
    student, teacher, labels = map(torch.from_numpy, some(1, rows=32))
    assert distillation_loss(teacher, teacher, labels, recipe).abs().max() < 1e-4
    student.requires_grad_(True)
    before = distillation_loss(student, teacher, labels, recipe).mean()
    (gradient,) = torch.autograd.grad(before, student)
    after = distillation_loss(student - 0.1 * gradient / gradient.norm(), teacher, labels, recipe).mean()
    assert after < before


def test_several_teachers_say_the_mean_of_their_probabilities() -> None:
    student, one, labels = some(4)
    other = some(5)[0]
    recipe = Distillation(3.0, 1.0)
    p = (softmax(one / 3) + softmax(other / 3)) / 2
    both = np.stack([one, other], axis=1)
    assert soft(student, both, labels, recipe) == pytest.approx(kl(p, softmax(student / 3)), abs=1e-9)
    assert soft(student, np.stack([one, one], axis=1), labels, recipe) == pytest.approx(
        soft(student, one, labels, recipe)
    )
    masks = torch.zeros(6, 2, 2, dtype=torch.uint8)
    pixels = [torch.from_numpy(x)[..., None, None].expand(*x.shape, 2, 2) for x in (student, both)]
    seen = pixel_distillation(pixels[0], pixels[1], masks, recipe).numpy() / 9
    assert seen == pytest.approx(kl(p, softmax(student / 3)), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_is_the_share_of_the_teacher(method: str) -> None:
    student, teacher, labels = map(torch.from_numpy, some(2))
    batch = Batch(torch.empty(6), labels, torch.arange(6))
    none, half, all_of_it = (
        class_blend(Distillation(4.0, a, method))(student, teacher, batch) for a in (0.0, 0.5, 1.0)
    )
    assert torch.allclose(none, torch.nn.functional.cross_entropy(student, labels, reduction="none"))
    assert torch.allclose(half, (none + all_of_it) / 2)
