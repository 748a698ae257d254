"""What a network cannot reach, said before it is trained: the roofline of the target, and the bytes of its weights."""

from __future__ import annotations

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Setup
from dlx_deploy.search.outcome import MIB, Miss, latency_miss, size_miss
from dlx_deploy.stages.support.budgets import at_best, least_latency_ms, least_start_ms
from dlx_deploy.targets import Profile

__all__ = ["check_budgets", "hopeless"]

FASTEST = "roofline at its best, before training"


def check_budgets(config: Config, profile: Profile) -> None:
    """Nothing, unless no network at all could be so fast.

    Raises:
        ConfigError: names the budget and the nearest that a network could meet.
    """
    least_ms = least_start_ms(profile)
    for percentile, limit_ms in config.gate.latency_budgets.items():
        if limit_ms >= least_ms:
            continue
        raise ConfigError(
            f"gate.max_latency_p{percentile}_ms is {limit_ms:g}, and on {profile.name} a single layer takes "
            f"{least_ms:.3g} ms or more to start; rule: a budget above the roofline; the nearest that a network could "
            f"meet is {least_ms:.3g}"
        )


def hopeless(config: Config, profile: Profile) -> tuple[Miss, ...]:
    """The budgets of speed and size that the network of ``config`` cannot meet, whatever its weights.

    Everything is taken at its best. Of a target that is this machine only the size is judged so: its roofline is an
    estimate, and there a trial is timed.
    """
    limits_ms, limit_mib = config.gate.latency_budgets, config.search.max_size_mib
    from dlx_deploy.stages.support.rehearsal import is_unknown, untrained

    if not (limits_ms or limit_mib) or is_unknown(config):
        return ()
    from dlx_deploy.graph.analysis.cost import layer_costs

    with untrained(Setup(config.export, {}, config, profile)) as path:
        layers = layer_costs(path)
    least_ms = least_latency_ms(layers, config, profile)
    weights = sum(layer.weight_bytes for layer in at_best(layers, config, profile))
    found = [latency_miss(least_ms, FASTEST, p, limit_ms) for p, limit_ms in limits_ms.items() if least_ms > limit_ms]
    if limit_mib and weights > limit_mib * MIB:
        found.append(size_miss(weights, limit_mib))
    return tuple(found)
