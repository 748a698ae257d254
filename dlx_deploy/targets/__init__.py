"""Targets as data: profiles in TOML, their loader, this host, and the roofline estimate."""

from dlx_deploy.targets.host import Host, is_this_host, read_host
from dlx_deploy.targets.loader import Alias, Target, list_aliases, list_targets, load_target
from dlx_deploy.targets.profile import Dla, Precision, Profile, QuantizationStyle, Roofline, Software
from dlx_deploy.targets.roofline import Estimate, LayerCost, LayerEstimate, estimate

__all__ = [
    "Alias",
    "Dla",
    "Estimate",
    "Host",
    "LayerCost",
    "LayerEstimate",
    "Precision",
    "Profile",
    "QuantizationStyle",
    "Roofline",
    "Software",
    "Target",
    "estimate",
    "is_this_host",
    "list_aliases",
    "list_targets",
    "load_target",
    "read_host",
]
