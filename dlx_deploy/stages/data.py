"""data: the images, decoded and resized once, split into train, calibration, validation and test."""

from __future__ import annotations

from dlx_deploy.config import Data
from dlx_deploy.pipeline.stage import Job, Metrics, Stage

__all__ = ["STAGE"]


def run(job: Job) -> Metrics:
    """Write the data artifact. ``images`` is bound for an image folder only."""
    import msgspec

    from dlx_deploy.nn.data.prepare import prepare

    params = job.params
    if "images" in job.inputs:
        params = msgspec.structs.replace(params, path=str(job.inputs["images"]))
    return prepare(params, job.out / "data", job.seed, job.progress)


STAGE = Stage(
    name="data",
    version=1,
    params=Data,
    inputs=("images",),
    outputs=("data",),
    run=run,
    tools=("numpy", "pillow", "scikit-learn"),
    modules=("dlx_deploy.stages.data", "dlx_deploy.nn.data"),
)
