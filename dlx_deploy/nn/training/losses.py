"""What training minimises: one number per sample, which the loop averages over an optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlx_deploy.nn.models.outputs import Answer, floats
from dlx_deploy.nn.training.batches import Batch

__all__ = ["Blend", "LossFn", "distilled", "distilled_from", "together", "undistilled"]

LossFn = Callable[[Answer, Batch], Tensor]
"""(what a network gives, float32[N, ...], the batch that it was given) → float32[N], to be minimised."""
Blend = Callable[[Answer, Answer, Batch], Tensor]
"""(what a student gives, what its teacher gives for the same inputs, the batch) → float32[N], to be minimised."""


def distilled(teacher: nn.Module, blend: Blend, others: Sequence[nn.Module] = ()) -> LossFn:
    """A loss for ``train``: ``blend`` with ``teacher`` on the very inputs that the student saw, and with ``others``.

    Beyer et al. 2022 ("a good teacher is patient and consistent"). Teachers are put in evaluation mode and learn
    nothing.
    """
    teachers = (teacher, *others)
    for one in teachers:
        one.eval().to(memory_format=torch.channels_last)

    def loss(answer: Answer, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = together([floats(one.to(batch.inputs.device)(batch.inputs)) for one in teachers])
        return blend(answer, taught, batch)

    return loss


def together(answers: Sequence[Answer]) -> Answer:
    """What several teachers say of the same samples, float32[N, teachers, ...]; of one its own answer."""
    return answers[0] if len(answers) == 1 else torch.stack(list(answers), dim=1)


def distilled_from(
    answers: npt.NDArray[np.float32], blend: Blend, samples: int, others: Sequence[npt.NDArray[np.float32]] = ()
) -> LossFn:
    """A loss for ``train``: ``blend`` with the teacher's outputs computed before, and with those of ``others``.

    ``answers``: float32[views * samples, ...], for each view of the training images all ``samples`` in their order.
    """

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        at = batch.rows if batch.views is None else batch.views * samples + batch.rows
        rows = [np.ascontiguousarray(held[at.numpy()]) for held in (answers, *others)]
        return blend(outputs, together([torch.from_numpy(x).to(outputs.device) for x in rows]), batch)

    return loss


def undistilled(blend: Blend) -> LossFn:
    """A loss for ``train``: a ``blend`` in which the teacher's share is 0, which needs no teacher."""

    def loss(answer: Answer, batch: Batch) -> Tensor:
        return blend(answer, answer, batch)

    return loss
