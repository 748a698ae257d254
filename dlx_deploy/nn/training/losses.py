"""What training minimises: one number per sample, which the loop averages over an optimizer step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.nn.models.outputs import Answer, floats
from dlx_deploy.nn.training.batches import Batch

__all__ = [
    "Blend",
    "LossFn",
    "class_blend",
    "cross_entropy",
    "distillation_loss",
    "distilled",
    "distilled_from",
    "supervised",
]

LossFn = Callable[[Answer, Batch], Tensor]
"""(what a network gives, float32[N, ...], the batch that it was given) → float32[N], to be minimised."""
Blend = Callable[[Answer, Answer, Batch], Tensor]
"""(what a student gives, what its teacher gives for the same inputs, the batch) → float32[N], to be minimised."""


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


def distilled(teacher: nn.Module, blend: Blend) -> LossFn:
    """A loss for ``train``: ``blend`` with ``teacher`` on the very inputs that the student saw.

    Beyer et al. 2022 ("a good teacher is patient and consistent"). The teacher is put in evaluation mode and learns
    nothing.
    """
    teacher.eval().to(memory_format=torch.channels_last)

    def loss(answer: Answer, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = floats(teacher.to(batch.inputs.device)(batch.inputs))
        return blend(answer, taught, batch)

    return loss


def distilled_from(answers: npt.NDArray[np.float32], blend: Blend) -> LossFn:
    """A loss for ``train``: ``blend`` with the teacher's outputs computed before.

    ``answers``: float32[samples, ...], in the order of the training split; right only without augmentation.
    """

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        taught = torch.from_numpy(np.ascontiguousarray(answers[batch.rows.numpy()])).to(outputs.device)
        return blend(outputs, taught, batch)

    return loss
