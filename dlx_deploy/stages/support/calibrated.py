"""Whether calibration inputs are like those to come: a folder of one class gives the ranges of that class alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.config import Quantize
from dlx_deploy.pipeline.stage import Job, Metrics
from dlx_deploy.runtime.words import percent

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Samples

__all__ = ["one_answer", "one_answer_notes"]

MOST_SAMPLES = 64
"""Of each split, evenly spread; files may come class by class."""
NEARLY_ALL = 0.95
OTHERS = 5
"""So many times as often as in calibration validation gets other answers, to be called different: where one class is
most of all data, calibration should be so too."""
CALIBRATION, VALIDATION = "calibration_one_answer", "validation_one_answer"


def one_answer(job: Job[Quantize]) -> Metrics:
    """The share of calibration inputs to which the float32 network gives its commonest answer and, if that is nearly
    all, of validation inputs; nothing where it decides nothing."""
    from dlx_deploy.graph.execution.decided import commonest_share
    from dlx_deploy.nn.data.dataset import open_data

    data, model = open_data(job.inputs["data"]), job.inputs["onnx"]
    seen = commonest_share(model, _some(data.samples("calibration")))
    if seen is None:
        return {}
    if seen < NEARLY_ALL or not data.splits.get("validation"):
        return {CALIBRATION: seen}
    usual = commonest_share(model, _some(data.samples("validation")))
    return {CALIBRATION: seen} if usual is None else {CALIBRATION: seen, VALIDATION: usual}


def _some(samples: Samples) -> Samples:
    return samples[:: -(-len(samples) // MOST_SAMPLES)]


def one_answer_notes(metrics: Metrics) -> list[str]:
    """Nothing where calibration is as varied as validation, as far as ``one_answer`` tells."""
    seen, usual = metrics.get(CALIBRATION, 0.0), metrics.get(VALIDATION)
    if seen < NEARLY_ALL or (usual is not None and 1 - usual < OTHERS * max(1 - seen, 1 / MOST_SAMPLES)):
        return []
    beside = "" if usual is None else f", and {percent(usual)} of the validation inputs"
    return [
        f"the network gives {percent(seen)} of the calibration inputs the same answer{beside}: scales of activations "
        "may fit that one class alone; calibrate on inputs of every class, or remove the folder calibration/ to have "
        "them drawn from train"
    ]
