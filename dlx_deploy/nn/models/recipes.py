"""Which preprocessing a network's weights were trained for, as their own metadata say it: their recipe.

Importing the libraries that know takes seconds, and a plan asks too: what they answered is kept in a folder, by all
that decides it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from dlx_deploy.config import Teacher
from dlx_deploy.nn.models.families import HF, Family, family_of, is_user, loaded
from dlx_deploy.runtime.files import write_atomically

__all__ = ["Reading", "Recipe", "Trained", "UnknownRecipe", "is_unread", "keep_recipe", "read_recipe", "trained_by"]

_SCHEMA = 2
"""Raised when the readers give other recipes for the same metadata."""
_LIBRARIES = ("timm", "torchvision", "transformers")
_BESIDE = "config.json"
_PROCESSOR = "preprocessor_config.json"
_OURS = "architecture.json"


class UnknownRecipe(Exception):
    """Raised by a reader; its text says why there is no recipe."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How pictures become what the network reads, by the names and values of ``[data]``.

    ``origin``: who says so. ``height`` 0: of any size. ``resize_size``: height and width in px. ``mean`` and ``std``
    are of pixels on the 0..1 scale, in the order in which the network reads colours.
    """

    origin: str
    height: int
    width: int
    resize: str
    resize_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill: tuple[int, ...] = ()
    color_order: str = "rgb"
    crop_offset: str = "round"


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What reading gave: a recipe, or why there is none; neither for weights of which nobody says one."""

    recipe: Recipe | None = None
    reason: str = ""


@dataclass(frozen=True)
class Trained:
    """Where trained weights come from, with ``name`` as their library has it.

    ``pretrained``: a name of the library's; or ``checkpoint``, a file. ``folder``: a Hugging Face model's, if it is
    here. ``config``: the ``config.json`` beside the checkpoint, if there is one.
    """

    name: str
    pretrained: str = ""
    checkpoint: Path | None = None
    folder: Path | None = None
    config: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Those whose content decides the recipe."""
        files = [self.config] if self.config else []
        files += [self.folder / name for name in (_BESIDE, _PROCESSOR)] if self.folder else []
        return [path for path in files if path.is_file()]


def trained_by(section: Teacher) -> tuple[Family, Trained] | None:
    """The family and the weights that ``section`` starts from, if anybody may know their recipe.

    ``None`` for networks that are trained from nothing, that are the user's own, and for weights that were made here:
    those saw what ``[data]`` said.
    """
    family = None if is_user(section.model) else family_of(section.model, "images")
    if family is None or not family.recipe or not (section.pretrained or section.checkpoint):
        return None
    name = section.model.removeprefix(family.prefix)
    folder = Path(name) if family.prefix == HF and Path(name).is_dir() else None
    if not section.checkpoint:
        return family, Trained(name, pretrained=section.pretrained, folder=folder)
    checkpoint = Path(section.checkpoint)
    if checkpoint.with_name(_OURS).is_file():
        return None
    beside = checkpoint.with_name(_BESIDE)
    return family, Trained(name, checkpoint=checkpoint, folder=folder, config=beside if beside.is_file() else None)


def is_unread(section: Teacher, cache: Path) -> bool:
    """Whether ``read_recipe`` would have to ask a library, which takes seconds to import and stays in memory."""
    known = trained_by(section)
    return known is not None and _kept(_path(*known, cache)) is None


def keep_recipe(asked: tuple[Teacher, Path]) -> dict[str, float]:
    """Have ``read_recipe`` keep what it reads, for another process; there is nothing to measure."""
    read_recipe(*asked)
    return {}


def read_recipe(section: Teacher, cache: Path) -> Reading:
    """What the metadata of the weights say that ``section`` starts from; asked once, then kept in ``cache``."""
    known = trained_by(section)
    if known is None:
        return Reading()
    family, trained = known
    path = _path(family, trained, cache)
    kept = _kept(path)
    if kept is not None:
        return kept
    try:
        reading = Reading(recipe=loaded(family.recipe)(trained))
    except UnknownRecipe as e:
        reading = Reading(reason=str(e))
    except ImportError:
        return Reading()  # whoever builds the network says what to install
    except OSError as e:  # of the hub, which may answer next time
        return Reading(reason=str(e).partition("\n")[0])
    _keep(path, reading)
    return reading


def _path(family: Family, trained: Trained, cache: Path) -> Path:
    return cache / f"{_digest(family, trained)}.json"


def _kept(path: Path) -> Reading | None:
    """What was read before; ``None``: not asked yet, or not by this version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reading)
    except (OSError, msgspec.MsgspecError):
        return None


def _keep(path: Path, reading: Reading) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(reading)) + b"\n")
    except OSError:
        pass  # asked again next time


def _digest(family: Family, trained: Trained) -> str:
    """SHA-256 of all that decides a recipe."""
    whose = (family.recipe, trained.name, trained.pretrained, trained.checkpoint.name if trained.checkpoint else "")
    versions = [(name, _version(name)) for name in _LIBRARIES]
    contents = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in trained.files]
    return hashlib.sha256(msgspec.json.encode((_SCHEMA, whose, versions, contents))).hexdigest()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
