"""The state that steps start from, as a build makes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.graph.quantization.placement import place
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.scheme import Scheme

from ....arrays import samples


def started(
    model: ModelProto, scheme: Scheme, inputs: NDArray[Any], given: QuantizationPlan | None = None
) -> tuple[Setting, State]:
    placement = place(model, scheme.placement, quantizable(Index(model), set()))
    entry = model.graph.input[0].name
    given = given or QuantizationPlan(schema=1)
    setting = Setting(scheme, placement, given, samples(np.asarray(inputs), name=entry))
    ranges = setting.measured(model, "minmax")
    return setting, State(model, setting.planned(model, ranges, "minmax"), ranges, "minmax")
