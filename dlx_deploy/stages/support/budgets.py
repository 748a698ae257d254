"""Budgets that contradict each other or the target, said before anything is trained: notes, which stop nothing.

A package may well be judged by a budget that nothing meets, on a board that is not here: the gate is then ``pending``,
and only the board would say so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec import Struct, structs

from dlx_deploy.config import Config, Gate
from dlx_deploy.devices.choice import device_for
from dlx_deploy.errors import DlxError
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.stages.support.results import MEASURED, Latencies
from dlx_deploy.targets import Profile
from dlx_deploy.targets.profile import Precision
from dlx_deploy.targets.roofline import SPREAD, LayerCost, estimate

__all__ = [
    "at_best",
    "budget_notes",
    "least_latency_ms",
    "least_start_ms",
    "missed_estimates",
    "rehearse_latency",
]

_BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "int4": 4, "fp4": 4}

_log = logging.getLogger(__name__)


def budget_notes(config: Config, profiles: Sequence[Profile]) -> list[str]:
    """What of the budgets cannot be met, or is none, as far as the configuration alone tells."""
    notes = [note for profile in profiles for note in _below_start(config.gate, profile)]
    asked, gate = config.quantize, config.gate.max_drop
    restores = asked.precision in ("auto", "int8") and any("int8" in profile.precisions for profile in profiles)
    if restores and isinstance(asked.max_drop, float) and asked.max_drop > gate:
        notes.append(
            f"quantize.max_drop is {asked.max_drop:g} and gate.max_drop {gate:g}: INT8 that keeps to the first on "
            f"validation is taken, and the gate may refuse it; set quantize.max_drop to 'gate', or to {gate:g} or less"
        )
    return notes


def _below_start(gate: Gate, profile: Profile) -> list[str]:
    least_ms = least_start_ms(profile)
    return _hopeless(gate, profile, f"a single layer takes {least_ms:.3g} ms or more to start", least_ms)


def _hopeless(gate: Gate, profile: Profile, least: str, least_ms: float) -> list[str]:
    """Of each budget of latency below ``least_ms``."""
    return [
        f"gate.max_latency_p{percentile}_ms is {limit_ms:g}, and on {profile.name} {least} (half of the roofline, an "
        "estimate): no build is expected to meet it, and the gate stays pending until the board measures it; the least "
        f"that could be met is {least_ms:.3g}"
        for percentile, limit_ms in gate.latency_budgets.items()
        if limit_ms < least_ms
    ]


def least_start_ms(profile: Profile) -> float:
    """What a single layer takes at least, by half of the roofline; 0 where the target is this machine, which is timed
    instead: a network here may well be faster than that."""
    return 0.0 if device_for(profile) is not None else profile.roofline.launch_us / 1e3 * (1 - SPREAD)


def least_latency_ms(layers: Sequence[LayerCost], config: Config, profile: Profile) -> float:
    """What the network of ``layers``, whatever its weights, takes at least, likewise: everything is taken at its best,
    the lowest precision for all layers, and half of what the roofline says of them."""
    if device_for(profile) is not None:
        return 0.0
    return estimate(at_best(layers, config, profile), profile).low_ms


def at_best(layers: Sequence[LayerCost], config: Config, profile: Profile) -> list[LayerCost]:
    """``layers`` in the lowest precision that the configuration may give them."""
    return [_in_precision(layer, _lowest(config, profile)) for layer in layers]


def rehearse_latency(setup: Setup[Struct]) -> None:
    """Say where no network of the configuration would keep to the latency that the gate allows; it never raises: what
    is wrong with the network is for the stages that make it to say."""
    config, target = setup.config, setup.target
    from dlx_deploy.stages.support.rehearsal import is_unknown, untrained

    budgets = config.gate.latency_budgets
    if not budgets or _below_start(config.gate, target) or device_for(target) is not None or is_unknown(config):
        return
    from dlx_deploy.graph.analysis.cost import layer_costs

    try:
        with untrained(setup) as path:
            least_ms = least_latency_ms(layer_costs(path), config, target)
    except DlxError as e:
        _log.debug("the least latency is not known: %s", e)
        return
    for note in _hopeless(
        config.gate, target, f"the network takes {least_ms:.3g} ms or more in its lowest precision", least_ms
    ):
        _log.warning("%s", note)


def missed_estimates(gate: Gate, latencies: Latencies, shipped: str) -> list[str]:
    """Where what is shipped was not timed, and takes longer than a budget even by half of the roofline; nothing where
    the gate decides, or the budget is not out of reach."""
    budgets = gate.latency_budgets
    if not budgets or latencies.kind == MEASURED:
        return []
    low_ms = next(row.low_ms for row in latencies.rows if row.model == shipped)
    return [
        f"{shipped} takes {low_ms:.3g} ms or more on {latencies.where} by half of the roofline (an estimate), and "
        f"gate.max_latency_p{percentile}_ms is {limit_ms:g}: the gate is pending here, and is expected to fail where "
        "it is measured; choose a smaller network, prune more, or raise the budget"
        for percentile, limit_ms in budgets.items()
        if low_ms is not None and low_ms > limit_ms
    ]


def _lowest(config: Config, profile: Profile) -> Precision:
    asked = config.quantize.precision
    if asked != "auto":
        return asked
    return next((name for name in ("int8", "fp16") if name in profile.precisions), "fp32")


def _in_precision(layer: LayerCost, precision: Precision) -> LayerCost:
    """``layer``, in FP32, as it would cost in ``precision``; what is smaller already stays."""
    if layer.dtype != "fp32":
        return layer
    ratio = _BITS["fp32"] // _BITS[precision]
    return structs.replace(
        layer,
        dtype=precision,
        weight_bytes=layer.weight_bytes // ratio,
        input_bytes=layer.input_bytes // ratio,
        output_bytes=layer.output_bytes // ratio,
    )
