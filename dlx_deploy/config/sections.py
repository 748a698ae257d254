"""``deploy.toml`` as frozen structs: every key, its type, its range and its default, in the tables beside this file.

What each key means stands in ``deploy.toml``.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, field

from dlx_deploy.config.compression import Compile, Export, Prune, Qat, Quantize
from dlx_deploy.config.data import Data
from dlx_deploy.config.gate import Gate, Package, Search, Verify
from dlx_deploy.config.strict import Table, decode
from dlx_deploy.config.training import Distill, Teacher, TrainingDefaults
from dlx_deploy.config.values import Identifier, Section

__all__ = ["Config"]

P = TypeVar("P", bound=msgspec.Struct)


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of ``deploy.toml``; what ``training`` says has entered the sections that inherit it."""

    name: Identifier = "digits"
    version: Identifier = "0.1.0"
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    targets: Annotated[tuple[str, ...], Meta(min_length=1)] = ("jetson",)
    data: Data = Data()
    training: TrainingDefaults = TrainingDefaults()
    teacher: Teacher = Teacher()
    distill: Distill = Distill()
    prune: Prune = Prune()
    export: Export = Export()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()
    compile: Compile = Compile()
    verify: Verify = Verify()
    gate: Gate = Gate()
    package: Package = Package()
    search: Search = Search()
    stages: dict[str, Table] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether a network learns from the training split, or is pruned by it."""
        return bool(self.teacher.epochs or self.distill.enabled or self.prune.enabled or self.qat.enabled is True)

    def own(self, stage: str, kind: type[P]) -> P:
        """The parameters that ``[stages.NAME]`` gives to a stage of another package.

        Raises:
            ConfigError: they are none of a ``kind``.
        """
        given = {key: value for key, value in self.stages.get(stage, {}).items() if key != "after"}
        return decode(given, kind, f"stages.{stage}")
