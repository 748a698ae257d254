"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["cross_entropy", "distillation_loss", "distilled", "supervised"]


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross entropy of ``logits`` float32[N, classes] against ``labels`` int64[N], in nats."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float
) -> Tensor:
    """``alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE``, both at float32[N, classes], mean over N.

    Hinton, Vinyals and Dean 2015: both distributions are softened by the temperature T; T^2 keeps the gradient of the
    soft part at the size of the hard part's whatever T is.
    """
    soft_student = F.log_softmax(student_logits / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = F.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def supervised(label_smoothing: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A loss for ``train``: the labels alone."""

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, label_smoothing)

    return loss


def distilled(teacher: nn.Module, temperature: float, alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A loss for ``train``: ``distillation_loss`` with ``teacher`` on the very images that the student saw.

    Beyer et al. 2022 ("a good teacher is patient and consistent"). The teacher is put in evaluation mode and learns
    nothing.
    """
    teacher.eval().to(memory_format=torch.channels_last)

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher(images)
        return distillation_loss(logits, teacher_logits, labels, temperature, alpha)

    return loss
