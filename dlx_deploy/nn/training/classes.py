"""Training of networks that answer one class of several: cross entropy, distillation, and the share that is right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.distillation import Distillation, soft_loss, taught
from dlx_deploy.nn.training.hooks import Metric, Targets
from dlx_deploy.nn.training.losses import Blend, LossFn

__all__ = ["TOP1", "class_blend", "cross_entropy", "distillation_loss", "supervised"]


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """float32[N]: the cross entropy of ``logits`` [N, classes] against ``labels``, in nats.

    ``labels`` are classes, int64[N], or distributions, float32[N, classes].
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, recipe: Distillation, done: float = 1.0
) -> Tensor:
    """float32[N]: ``alpha * T^2 * soft + (1 - alpha) * CE`` of logits float32[N, classes], as ``recipe`` says.

    Of Hinton, Vinyals and Dean 2015 soft is ``KL(teacher || student)``, both softened by the temperature T. Several
    teachers' logits are float32[N, teachers, classes]. ``labels`` as in ``cross_entropy``; ``dkd`` takes classes.
    ``done``: the share of all steps that is, by which alpha of the first term rises where the recipe says so.
    """
    soft = soft_loss(recipe)(*taught(student, teacher, recipe), labels)
    weight = recipe.soft_weight(done) * recipe.temperature**2
    return weight * soft + (1 - recipe.alpha) * cross_entropy(student, labels)


def supervised(label_smoothing: float) -> LossFn:
    """``cross_entropy`` of logits float32[N, classes]: the labels alone."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch.targets, label_smoothing)

    return loss


def class_blend(recipe: Distillation) -> Blend:
    """``distillation_loss`` of logits float32[N, classes]."""

    def blend(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return distillation_loss(student, teacher, batch.targets, recipe, batch.done)

    return blend


class _Top1:
    name, title = "top1", "top-1"

    def total(self, outputs: npt.NDArray[np.float32], targets: Targets) -> npt.NDArray[np.float64]:
        return np.asarray((outputs.argmax(axis=1) == targets).sum(), dtype=np.float64)

    def score(self, total: npt.NDArray[np.float64], count: float) -> float:
        return float(total) / count


TOP1: Metric = _Top1()
"""The share of samples whose highest logit, float32[N, classes], is at their label, int64[N]."""
