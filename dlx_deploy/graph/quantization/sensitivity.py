"""What each layer costs on integers: how near the answers stay to the network's with that layer alone in INT8.

One layer at a time, all others in floating point (Wu et al. 2020, "Integer Quantization for Deep Learning Inference",
section 5.2): so each shows its own noise. With one layer alone restored, a single bad one would hide all others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.kit.judge import Judge
from dlx_deploy.graph.quantization.mixed import Planned, without
from dlx_deploy.graph.quantization.quantize import quantize_model
from dlx_deploy.graph.quantization.trials import LayerSensitivity

__all__ = ["layer_sensitivity"]


def layer_sensitivity(planned: Planned, group: tuple[str, ...], judge: Judge, scratch: Path) -> LayerSensitivity:
    """Of the layers in ``group`` alone on int8, by the one writer, float32 elsewhere; ``scratch`` is overwritten.

    Raises:
        StageFailed: ONNX Runtime cannot run what was written.
    """
    plain = replace(planned, request=replace(planned.request, half=False, effort="fast"))
    others = [name for name in planned.plan.layers_at("int8") if name not in group]
    quantize_model(planned.source, scratch, planned.calibration, without(plain, others))
    score = judge.score(load(scratch))
    return LayerSensitivity(layers=group, sqnr_db=round(score.sqnr_db, 3), agreement=score.agreement)
