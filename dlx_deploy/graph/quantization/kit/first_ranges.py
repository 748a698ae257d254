"""The ranges that a build begins with, and with them those that steps will ask for."""

from __future__ import annotations

from onnx import ModelProto

from dlx_deploy.graph.quantization.kit.efforts import Effort, measured_ahead
from dlx_deploy.graph.quantization.kit.runner import LEAST_ROWS
from dlx_deploy.graph.quantization.kit.state import Setting
from dlx_deploy.graph.quantization.planning import asked_methods
from dlx_deploy.graph.quantization.ranges import LARGEST_BATCH, Ranges, collect_ranges, rows_in_one_pass
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress

__all__ = ["first_ranges"]


def first_ranges(
    model: ModelProto, samples: Samples, setting: Setting, effort: Effort, method: str, progress: Progress
) -> Ranges:
    """The ranges by ``method`` over all ``samples``, and in the same pass those that the first steps need, of the half
    that these may see; none where the plan that was given says them all."""
    asked = asked_methods(setting.placement, setting.given, method)
    if not asked:
        return Ranges()
    ahead, largest = measured_ahead(effort, method), LARGEST_BATCH
    if len(samples) < LEAST_ROWS or any(methods != ("minmax",) for methods in asked.values()):
        ahead = ()
    if ahead:
        asked = {name: (*methods, *ahead) for name, methods in asked.items()}
        largest = rows_in_one_pass(model, asked)
    return collect_ranges(
        model,
        samples,
        asked,
        symmetric=setting.scheme.symmetric,
        largest_batch=largest,
        methods=setting.methods,
        halved=ahead,
        progress=progress,
    )
