"""Networks as inputs of steps: the files that a section names, and the libraries that make what it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from dlx_deploy.config import Distill, Teacher
from dlx_deploy.nn.models.families import HF, USER, family_of
from dlx_deploy.pipeline.stage import Network, Source, Stage, Tree
from dlx_deploy.plugins import provider

__all__ = ["NamedNetwork", "named_network", "rebuilding"]

S = TypeVar("S", Teacher, Distill)


@dataclass(frozen=True)
class NamedNetwork(Generic[S]):
    """A section that names a network, without the user's paths: these are ``files``, hashed by content."""

    section: S
    files: Mapping[str, Source]
    library: str


def named_network(section: S) -> NamedNetwork[S]:
    """``section`` with the user's file or folder that its ``model`` names, if it names one, as the input ``source``."""
    files: dict[str, Source] = {}
    path, is_file, function = section.model.rpartition(USER)
    if is_file:
        files["source"] = Path(f"{path}.py")
        section = replace(section, model=f"model.py:{function}")
    folder = Path(section.model.removeprefix(HF))
    if section.model.startswith(HF) and folder.is_dir():
        files["source"] = Tree(folder, _hf_files)
        section = replace(section, model=f"{HF}source")
    family = family_of(section.model)
    library = family.library if family else "" if is_file else provider("model", section.model)
    return NamedNetwork(section, files, library)


def rebuilding(stage: Stage[Any], networks: Iterable[Network], library: str = "") -> Stage[Any]:
    """``stage`` with the libraries of the ``networks`` that it loads, and of the one that it makes, among its tools."""
    libraries = sorted({library, *(network.library for network in networks)} - {""})
    return dataclasses.replace(stage, tools=(*stage.tools, *libraries)) if libraries else stage


def _hf_files(folder: Path) -> list[str]:
    """What of a Hugging Face model's folder counts: its configuration and its weights."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin"))
