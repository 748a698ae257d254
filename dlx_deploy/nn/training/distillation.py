"""How far what a student says of classes is from what its teacher says: one number per sample, whoever asks for it.

All of it is computed on log-probabilities at a temperature, in float32 and never by a probability's logarithm, so that
values and gradients stay finite where a softmax is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.config import DKD, HINTON, Taught

__all__ = [
    "Distillation",
    "SoftLoss",
    "decoupled",
    "kullback_leibler",
    "relational",
    "soft_loss",
    "softened",
    "taught",
]

SoftLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(the student's log-probabilities, its teacher's, both float32[N, K], labels int64[N]) → float32[N]."""

_DKD_BETA, _DIST_BETA = 2.0, 1.0
"""Zhao et al. 2022 take 1 to 10, the more the surer the teacher is; Huang et al. 2022 weigh both relations alike."""
_EPSILON = 1e-8
"""Of variances of probabilities: under it they are taken for constant, and tell of no relation."""
_LOGIT_EPSILON = 1e-7
"""Of a variance of logits."""


@dataclass(frozen=True)
class Distillation:
    """The keys of a section that is taught: what a student minimises is ``alpha * T^2 * soft + (1 - alpha) * hard``.

    ``beta``: of ``dkd`` and ``dist``, 0 is what their papers take. ``warmup``: the share of all steps over which the
    first term rises from 0.
    """

    temperature: float
    alpha: float
    method: str = HINTON
    beta: float = 0.0
    standardize: bool = False
    warmup: float = 0.0

    @classmethod
    def of(cls, section: Taught) -> Distillation:
        """What ``section`` says."""
        of_method = (section.method, section.beta, section.standardize)
        return cls(section.temperature, section.alpha, *of_method, section.soft_warmup)

    def soft_weight(self, done: float) -> float:
        """What the teacher's term counts, without T^2, when ``done`` (0..1) of all steps are.

        The labels' term is the same throughout: rising linearly is what the authors of DKD do, for 20 of 240 epochs.
        """
        return self.alpha if done >= self.warmup else self.alpha * done / self.warmup


def softened(logits: Tensor, recipe: Distillation) -> Tensor:
    """float32[N, K, ...]: the log-probabilities of ``logits`` of the same shape at the recipe's temperature.

    Where it standardizes, those of their Z-scores over the classes (Sun et al. 2024, "Logit Standardization in
    Knowledge Distillation"): a student need not learn how large its teacher's logits are.
    """
    if recipe.standardize:
        deviation = logits.var(dim=1, keepdim=True, correction=0).add(_LOGIT_EPSILON).sqrt()
        logits = (logits - logits.mean(dim=1, keepdim=True)) / deviation
    return F.log_softmax(logits / recipe.temperature, dim=1)


def taught(student: Tensor, teacher: Tensor, recipe: Distillation) -> tuple[Tensor, Tensor]:
    """Both's log-probabilities, float32[N, K, ...], of logits; of several teachers float32[N, M, K, ...].

    What several teachers say is the mean of their probabilities at the temperature (Hinton et al. 2015, section 5, of
    an ensemble): one that is sure of something else is not outvoted by the size of the others' logits.
    """
    mine = softened(student, recipe)
    if teacher.ndim == student.ndim:
        return mine, softened(teacher, recipe)
    theirs = torch.stack([softened(one, recipe) for one in teacher.unbind(dim=1)])
    return mine, theirs.logsumexp(dim=0) - math.log(len(theirs))


def soft_loss(recipe: Distillation) -> SoftLoss:
    """What the recipe's method measures."""
    if recipe.method == HINTON:
        return lambda student, teacher, labels: kullback_leibler(student, teacher)
    if recipe.method == DKD:
        beta = recipe.beta or _DKD_BETA
        return lambda student, teacher, labels: decoupled(student, teacher, labels, beta)
    return lambda student, teacher, labels: relational(student, teacher, recipe.beta or _DIST_BETA)


def kullback_leibler(student: Tensor, teacher: Tensor) -> Tensor:
    """float32[N, ...]: ``KL(teacher || student)`` over axis 1, in nats (Hinton, Vinyals and Dean 2015).

    Both are log-probabilities, float32[N, K, ...].
    """
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def decoupled(student: Tensor, teacher: Tensor, labels: Tensor, beta: float) -> Tensor:
    """float32[N]: ``TCKD + beta * NCKD`` (Zhao et al. 2022, "Decoupled Knowledge Distillation", equation 7, alpha 1).

    TCKD: KL of "the target or not". NCKD: KL of the other classes among themselves, which plain KL weighs by how unsure
    the teacher is of the target. Both are log-probabilities, float32[N, K], K at least 2, ``labels`` int64[N].
    """
    mine, theirs = _split(student, labels), _split(teacher, labels)
    target = kullback_leibler(mine[0], theirs[0])
    others = kullback_leibler(F.log_softmax(mine[1], dim=1), F.log_softmax(theirs[1], dim=1))
    return target + beta * others


def relational(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """float32[N]: ``inter + beta * intra``, 0 to 2 each: how badly the two agree on what is likelier than what.

    Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher". inter: 1 - Pearson's correlation of a sample's
    probabilities. intra: likewise of a class's over the batch, a mean over classes, and the same for each sample. Both
    are log-probabilities, float32[N, K].
    """
    mine, theirs = student.exp(), teacher.exp()
    inter = 1 - _correlation(mine, theirs, 1)
    return inter + beta * (1 - _correlation(mine, theirs, 0)).mean()


def _split(logp: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, 2] of the target and of anything else, and [N, K - 1] of all that is else."""
    is_target = F.one_hot(labels, logp.shape[1]).bool()
    others = logp.masked_select(~is_target).view(len(logp), -1)
    return torch.stack([logp.masked_select(is_target), others.logsumexp(dim=1)], dim=1), others


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a, b = (x - x.mean(dim=dim, keepdim=True) for x in (a, b))
    norms = ((a * a).mean(dim=dim) + _EPSILON) * ((b * b).mean(dim=dim) + _EPSILON)
    return (a * b).mean(dim=dim) / norms.sqrt()
