"""``deploy.toml``: its tables as frozen structs, and how it is read."""

from dlx_deploy.config.compression import Compile, Export, Prune, Qat, Quantize
from dlx_deploy.config.data import LAYOUTS, Data
from dlx_deploy.config.gate import Gate, Package, Search, Verify
from dlx_deploy.config.loading import load_config
from dlx_deploy.config.sections import Config
from dlx_deploy.config.training import (
    ATTENTION,
    DIST,
    DKD,
    GRAPHS,
    HINTON,
    METHODS,
    PROJECTOR,
    RELATION,
    Distill,
    Taught,
    Teacher,
    Training,
    TrainingDefaults,
)
from dlx_deploy.config.values import Section

__all__ = [
    "ATTENTION",
    "DIST",
    "DKD",
    "GRAPHS",
    "HINTON",
    "LAYOUTS",
    "METHODS",
    "PROJECTOR",
    "RELATION",
    "Compile",
    "Config",
    "Data",
    "Distill",
    "Export",
    "Gate",
    "Package",
    "Prune",
    "Qat",
    "Quantize",
    "Search",
    "Section",
    "Taught",
    "Teacher",
    "Training",
    "TrainingDefaults",
    "Verify",
    "load_config",
]
