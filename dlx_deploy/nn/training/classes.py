"""Training of networks that answer one class of several: cross entropy, distillation, and the share that is right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.hooks import Metric, Targets
from dlx_deploy.nn.training.losses import Blend, LossFn

__all__ = ["TOP1", "class_blend", "cross_entropy", "distillation_loss", "supervised"]


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """float32[N]: the cross entropy of ``logits`` [N, classes] against ``labels``, in nats.

    ``labels`` are classes, int64[N], or distributions, float32[N, classes].
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float
) -> Tensor:
    """float32[N]: ``alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE``, both logits float32[N, classes].

    Hinton, Vinyals and Dean 2015: both distributions are softened by the temperature T; T^2 keeps the gradient of the
    soft part at the size of the hard part's whatever T is.
    """
    soft_student = F.log_softmax(student_logits / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = F.kl_div(soft_student, soft_teacher, reduction="none", log_target=True).sum(dim=1)
    return alpha * temperature**2 * soft + (1 - alpha) * cross_entropy(student_logits, labels)


def supervised(label_smoothing: float) -> LossFn:
    """``cross_entropy`` of logits float32[N, classes]: the labels alone."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch.targets, label_smoothing)

    return loss


def class_blend(temperature: float, alpha: float) -> Blend:
    """``distillation_loss`` of logits float32[N, classes]."""

    def blend(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return distillation_loss(student, teacher, batch.targets, temperature, alpha)

    return blend


class _Top1:
    name, title = "top1", "top-1"

    def total(self, outputs: npt.NDArray[np.float32], targets: Targets) -> npt.NDArray[np.float64]:
        return np.asarray((outputs.argmax(axis=1) == targets).sum(), dtype=np.float64)

    def score(self, total: npt.NDArray[np.float64], count: float) -> float:
        return float(total) / count


TOP1: Metric = _Top1()
"""The share of samples whose highest logit, float32[N, classes], is at their label, int64[N]."""
