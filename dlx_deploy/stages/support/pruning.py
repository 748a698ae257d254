"""What pruning looks at beside the weights, where ``[prune]`` asks for it: samples of the data, the task's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dlx_deploy.config import HINTON, Prune
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.tasks import task_of

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.pruning.order import Grounds

__all__ = ["grounds"]


def grounds(job: Job[Prune], data: Dataset) -> Grounds:
    """For the network that ``job`` prunes: what its importance and its goal ask for, and who watches."""
    from dlx_deploy.nn.pruning.batches import SomeOf
    from dlx_deploy.nn.pruning.order import Grounds
    from dlx_deploy.nn.training.batches import TrainData
    from dlx_deploy.nn.training.losses import undistilled

    if job.params.importance == "l2":
        return Grounds(progress=job.progress)
    task = task_of(data)
    batches = SomeOf(TrainData.of(data, task.inputs.feed(data)), job.seed)
    alone = task.answers.blend(replace(job.params, method=HINTON, alpha=0.0), data)  # the targets' loss
    return Grounds(batches, undistilled(alone), progress=job.progress)
