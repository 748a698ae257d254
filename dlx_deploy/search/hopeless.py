"""What a network cannot reach, said before it is trained: the roofline of the target, and the bytes of its weights."""

from __future__ import annotations

from msgspec import structs

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.search.outcome import MIB, Miss, latency_miss, size_miss
from dlx_deploy.targets import Profile
from dlx_deploy.targets.profile import Precision
from dlx_deploy.targets.roofline import SPREAD, LayerCost, estimate

__all__ = ["check_budgets", "hopeless"]

BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "int4": 4}
FASTEST = "roofline at its best, before training"


def check_budgets(config: Config, profile: Profile) -> None:
    """Nothing, unless no network at all could be so fast.

    Raises:
        ConfigError: names the budget and the nearest that a network could meet.
    """
    limit_ms, least_ms = config.gate.max_latency_p90_ms, profile.roofline.launch_us / 1e3 * (1 - SPREAD)
    if 0 < limit_ms < least_ms:
        raise ConfigError(
            f"gate.max_latency_p90_ms is {limit_ms:g}, and on {profile.name} a single layer takes {least_ms:.3g} ms or "
            f"more to start; rule: a budget above the roofline; the nearest that a network could meet is {least_ms:.3g}"
        )


def hopeless(config: Config, profile: Profile) -> tuple[Miss, ...]:
    """The budgets of speed and size that the network of ``config`` cannot meet, whatever its weights.

    Everything is taken at its best: the lowest precision for all layers, and half of what the roofline says of them.
    """
    limit_ms, limit_mib = config.gate.max_latency_p90_ms, config.search.max_size_mib
    from dlx_deploy.stages.support.rehearsal import is_unknown, untrained

    if not (limit_ms or limit_mib) or is_unknown(config):
        return ()
    from dlx_deploy.graph.analysis.cost import layer_costs

    with untrained(Setup(config.export, {}, config, profile)) as path:
        layers = [_at_best(layer, _lowest(config, profile)) for layer in layer_costs(path)]
    least_ms = estimate(layers, profile).low_ms
    weights = sum(layer.weight_bytes for layer in layers)
    found = [latency_miss(least_ms, FASTEST, limit_ms)] if limit_ms and least_ms > limit_ms else []
    if limit_mib and weights > limit_mib * MIB:
        found.append(size_miss(weights, limit_mib))
    return tuple(found)


def _lowest(config: Config, profile: Profile) -> Precision:
    asked = config.quantize.precision
    if asked != "auto":
        return asked
    return next((name for name in ("int8", "fp16") if name in profile.precisions), "fp32")


def _at_best(layer: LayerCost, precision: Precision) -> LayerCost:
    """``layer``, in FP32, as it would cost in ``precision``; what is smaller already stays."""
    if layer.dtype != "fp32":
        return layer
    ratio = BITS["fp32"] // BITS[precision]
    return structs.replace(
        layer,
        dtype=precision,
        weight_bytes=layer.weight_bytes // ratio,
        input_bytes=layer.input_bytes // ratio,
        output_bytes=layer.output_bytes // ratio,
    )
