"""data: images decoded and resized, or texts tokenized, once, split into train, calibration, validation and test."""

from __future__ import annotations

from dlx_deploy.config import Data
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.checks import check_data

__all__ = ["STAGE"]


def run(job: Job[Data]) -> Metrics:
    """Write the data artifact. ``images``, ``texts`` and ``tokenizer`` are bound where the user names files."""
    import msgspec

    from dlx_deploy.nn.data.prepare import prepare

    files = {"images": "path", "texts": "path", "tokenizer": "tokenizer"}
    found = {key: str(job.inputs[name]) for name, key in files.items() if name in job.inputs}
    params = msgspec.structs.replace(job.params, **found)
    return prepare(params, job.out / "data", job.seed, job.progress)


STAGE = Stage(
    name="data",
    version=3,
    params=Data,
    inputs=("images", "texts", "tokenizer"),
    outputs=("data",),
    run=run,
    check=check_data,
    tools=("numpy", "pillow", "scikit-learn", "tokenizers", "torch"),
)
