"""logits: the teacher's answers to the training split, computed once for students that learn without augmentation."""

from __future__ import annotations

from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.training import TORCH_TOOLS, NoParams, use_threads

__all__ = ["STAGE"]


def run(job: Job[NoParams]) -> Metrics:
    """Write ``logits.npy``: float32[training samples, classes], in the order of the split."""
    import numpy as np

    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.training.batches import feed_for
    from dlx_deploy.nn.training.compute import training_device
    from dlx_deploy.nn.training.inference import predict_logits
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    teacher, _ = load_model(job.inputs["teacher"])
    inputs, labels = data.split("train")
    logits = predict_logits(teacher.to(training_device()), inputs, feed_for(data))
    np.save(job.out / "logits.npy", logits, allow_pickle=False)
    return {"train_samples": float(len(logits)), "train_top1": float((logits.argmax(axis=1) == labels).mean())}


STAGE = Stage(
    name="logits",
    version=1,
    params=NoParams,
    inputs=("data", "teacher"),
    outputs=("logits.npy",),
    run=run,
    tools=TORCH_TOOLS,
)
