"""``deploy.toml``: its tables as frozen structs, and how it is read."""

from dlx_deploy.config.loading import load_config
from dlx_deploy.config.sections import (
    GRAPHS,
    LAYOUTS,
    Compile,
    Config,
    Data,
    Distill,
    Export,
    Gate,
    Package,
    Prune,
    Quantize,
    Section,
    Teacher,
    Training,
    TrainingDefaults,
    Verify,
)

__all__ = [
    "GRAPHS",
    "LAYOUTS",
    "Compile",
    "Config",
    "Data",
    "Distill",
    "Export",
    "Gate",
    "Package",
    "Prune",
    "Quantize",
    "Section",
    "Teacher",
    "Training",
    "TrainingDefaults",
    "Verify",
    "load_config",
]
