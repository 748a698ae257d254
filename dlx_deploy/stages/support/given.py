"""What can be said of a plan that is given back, before there is a graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.stages.support.missed import trains_int8
from dlx_deploy.stages.support.precisions import OLDEST_OPSET
from dlx_deploy.stages.support.requested import QUANTIZED_TO, Precision

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.plan import QuantizationPlan

__all__ = ["check_plan"]


def check_plan(path: Path, setup: Setup[Quantize], precision: Precision) -> None:
    """Nothing, if its layers have precisions that ``quantize.precision``, here ``precision``, writes.

    INT8 by name and lines in INT4 go into one graph.

    Raises:
        ConfigError: they have others.
    """
    from dlx_deploy.graph.quantization.plan import read_plan

    given, asked = read_plan(path), setup.params.precision
    both = asked == "int8" and "int4" in setup.target.precisions
    if both and given.layers_at("int4"):
        _check_both(path, given, setup)
    for kind in QUANTIZED_TO:
        if precision != kind and not (kind == "int4" and both) and (layers := given.layers_at(kind)):
            raise ConfigError(
                f"{path}: layers[{layers[0]!r}].precision is {kind!r}, and quantize.precision {asked!r} "
                f"writes no {kind.upper()} for this target; set one of the two to what the other says"
            )


def _check_both(path: Path, given: QuantizationPlan, setup: Setup[Quantize]) -> None:
    """INT4 beside INT8: an opset that has it, and nobody who would train all of it as INT8."""
    where = f"{path}: layers[{given.layers_at('int4')[0]!r}].precision is 'int4'"
    opset, oldest = setup.config.export.opset or setup.target.opset, OLDEST_OPSET["int4"]
    if opset < oldest:
        raise ConfigError(f"{where}, and the graph's opset {opset}; rule: {oldest} or newer; set export.opset")
    if trains_int8(setup.config, setup.target) != "never":
        raise ConfigError(
            f"{where} beside INT8, and qat would train the network as INT8 alone; set qat.enabled = false"
        )
