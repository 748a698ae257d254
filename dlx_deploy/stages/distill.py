"""distill: a smaller student that learns from the teacher's answers (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

from dlx_deploy.config import Distill
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.checks import check_distill
from dlx_deploy.stages.support.rehearsal import rehearse_distill
from dlx_deploy.stages.support.training import TORCH_TOOLS, distilling, new_model, train_and_save, use_threads

__all__ = ["STAGE"]


def run(job: Job[Distill]) -> Metrics:
    """Write ``model``.

    Raises:
        ConfigError: the network cannot be made. StageFailed: training diverged.
    """
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = new_model(job, data)
    return train_and_save(job, data, model, architecture, distilling(job))


STAGE = Stage(
    name="distill",
    version=3,
    params=Distill,
    inputs=("data", "source", "teacher", "logits"),
    outputs=("model",),
    run=run,
    check=check_distill,
    rehearse=rehearse_distill,
    distributed=True,
    tools=TORCH_TOOLS,
)
