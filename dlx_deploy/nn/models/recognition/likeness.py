"""Which registered networks a state dict is likely of: proposed by sketches, then built without memory and compared."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dlx_deploy.errors import DlxError
from dlx_deploy.nn.models.families import TIMM, family_of
from dlx_deploy.nn.models.hollow import hollow_model, shapes_of
from dlx_deploy.nn.models.inputs import ImageInput, InputSpec, TokenInput
from dlx_deploy.nn.models.recognition.fit import Differences, compared, has_positions, outputs_of
from dlx_deploy.nn.models.recognition.sketch import Entry, Shapes, alike, entry_of, plain, read_index
from dlx_deploy.nn.models.resnet_cifar import DEPTHS
from dlx_deploy.nn.models.scaling import VIT_DEFAULTS, can_scale
from dlx_deploy.nn.models.unet import UNET_DEFAULTS
from dlx_deploy.progress import Progress, silent

__all__ = ["USUAL", "Likeness", "compared_with", "likely_networks"]

_CANDIDATES = 6
_LEAST = 0.25
"""Sketches that have less in common propose nothing: chance gives some."""
_SHAPES_ALONE = 0.8
"""What shapes are worth under other names: more than names under which most shapes are others."""
_ROUNDS = 3
"""How often what differs is put right and the network built again: classes, then what they had hidden."""
USUAL = ImageInput(3, 224, 224)
"""The images that networks are made for as a rule."""
_TEXTS = TokenInput(4096, 128)


@dataclass(frozen=True)
class Likeness:
    """A registered network, built as near to a state dict as its arguments let it be, and how that still differs.

    ``others``: names of networks of the same structure. ``spec``: what it was built for. ``shapes``: its own.
    ``usual``: how the state dict differs from the network as it is without arguments.
    """

    name: str
    others: tuple[str, ...]
    arguments: Mapping[str, object]
    classes: int
    spec: InputSpec
    shapes: Shapes
    differences: Differences
    usual: Differences

    @property
    def exact(self) -> bool:
        """Whether every tensor has its name and shape in both."""
        return self.differences.fits

    @property
    def nearness(self) -> float:
        """How near it is, 0..1, for comparisons: names and shapes, or shapes alone, which is less."""
        return max(self.differences.share, _SHAPES_ALONE * self.differences.shape_share)

    @property
    def channels(self) -> int:
        """The channels of the images that it reads; 0 where it reads none."""
        return self.spec.channels if isinstance(self.spec, ImageInput) else 0

    @property
    def side(self) -> int:
        """The side of the images that it reads, in pixels; 0 where it reads none, or any size: it has no positions."""
        return self.spec.height if isinstance(self.spec, ImageInput) and has_positions(self.shapes) else 0

    @property
    def unusual(self) -> str:
        """The images that it reads, where they are not of three channels or the usual size; else nothing."""
        channels = "" if self.channels in (0, USUAL.channels) else f" of {self.channels} channels"
        size = "" if self.side in (0, USUAL.height) else f" of {self.side} x {self.side}"
        return f", images{channels}{size}" if channels or size else ""


def likely_networks(shapes: Shapes, progress: Progress = silent, hint: str = "") -> list[Likeness]:
    """The networks that have most in common with the state dict of ``shapes``, the nearest first; it may be none.

    One that every tensor fits is the only one. Of networks of one structure the first is that which ``hint``, a file's
    name, is likeliest to mean. Those of libraries that are not installed are left out.
    """
    candidates = _candidates(shapes)
    found = []
    for i, entry in enumerate(candidates):
        first, *others = _meant_first(entry.names, hint)
        progress(i, len(candidates), f"{first} is compared")
        likeness = compared_with(first, shapes, tuple(others))
        if likeness is not None and likeness.exact:
            return [likeness]
        if likeness is not None:
            found.append(likeness)
    found.sort(key=lambda one: (-one.nearness, len(one.arguments)))
    return [one for one in found if max(one.differences.share, one.differences.shape_share) >= _LEAST]


def compared_with(name: str, shapes: Shapes, others: tuple[str, ...] = ()) -> Likeness | None:
    """The network ``name``, with the arguments that bring it nearest to ``shapes``; ``None`` if it cannot be built."""
    family = family_of(name)
    spec: InputSpec = _TEXTS if family is not None and family.reads == "texts" else USUAL
    tried: dict[str, Any] = {"arguments": {}, "classes": outputs_of(plain(shapes)) or 2, "spec": spec}
    usual: Differences | None = None
    best: Likeness | None = None
    for _ in range(_ROUNDS):
        try:
            own = shapes_of(hollow_model(name, tried["arguments"], tried["classes"], tried["spec"]))
        except DlxError:
            break
        differences = compared(own, shapes)
        usual = usual or differences
        if best is None or differences.share > best.differences.share:
            best = Likeness(name, others, **tried, shapes=own, differences=differences, usual=usual)
        nearer = _put_right(name, tried, differences)
        if differences.fits or nearer == tried:
            break
        tried = nearer
    return best


def _put_right(name: str, tried: Mapping[str, Any], differences: Differences) -> dict[str, Any]:
    """What to build instead, so that what ``differences`` name is gone."""
    arguments, spec = dict(tried["arguments"]), tried["spec"]
    classes = differences.classes[1] if differences.classes else tried["classes"]
    if isinstance(spec, ImageInput):
        if differences.channels and differences.channels[1] in (1, 2, 3, 4):
            spec = replace(spec, channels=differences.channels[1])
        if differences.kernel and can_scale(name) and differences.kernel[1] in (3, 4):
            arguments["stem"] = "small"
        if differences.patches and (side := _side(spec.height, differences.patches)):
            spec = replace(spec, height=side, width=side)
    if differences.width:
        arguments |= _width(name, arguments, differences.width)
    lost = [name for name in differences.missing if ".shortcut." in name]
    if name in DEPTHS and lost and len(lost) == len(differences.missing):
        arguments["shortcut"] = "A"
    return {"arguments": arguments, "classes": classes, "spec": spec}


def _width(name: str, now: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """The argument that makes the network so many times as wide as with those of ``now``; none where it has none."""
    whole = {"vit": VIT_DEFAULTS["width"], "unet": UNET_DEFAULTS["width"]}
    if name in whole:
        return {"width": round(now.get("width", whole[name]) * ratio)}
    key = "width_mult" if name.startswith("mobilenet_v") else "width"
    if name in DEPTHS or can_scale(name) or key == "width_mult":
        return {key: round(now.get(key, 1.0) * ratio, 3)}
    return {}


def _side(side: int, patches: tuple[int, int]) -> int:
    """The side of the images that gives as many patches, with a class token or without; 0 where none does."""
    for token in (1, 0):
        before, after = (math.isqrt(max(rows - token, 0)) for rows in patches)
        if before and before**2 == patches[0] - token and after**2 == patches[1] - token and side * after % before == 0:
            return side * after // before
    return 0


def _candidates(shapes: Shapes) -> list[Entry]:
    """The structures of the index whose sketches have most in common, by shapes and by names."""
    wanted = entry_of("", shapes)
    by_name, by_shape = bytes.fromhex(wanted.by_name), bytes.fromhex(wanted.by_shape)
    scored = []
    for entry in _usable():
        named = alike(bytes.fromhex(entry.by_name), by_name)
        shaped = alike(bytes.fromhex(entry.by_shape), by_shape)
        nearness = -abs(math.log((entry.parameters + 1) / (wanted.parameters + 1)))
        scored.append((named, shaped, nearness, entry))
    keys = (lambda s: (s[0] + s[1], s[2]), lambda s: (s[1], s[2]), lambda s: (s[0], s[2]))
    chosen: dict[Entry, None] = {}
    for key in keys:
        best = sorted((s for s in scored if max(s[0], s[1]) >= _LEAST), key=key, reverse=True)
        chosen |= dict.fromkeys(s[3] for s in best[: _CANDIDATES // 2])
    return list(chosen)


def _meant_first(names: Sequence[str], hint: str) -> list[str]:
    """``names``, those that stand in ``hint`` first: the longest one, which says most."""

    def said(name: str) -> int:
        bare = name.removeprefix(TIMM)
        return len(bare) if bare.lower() in hint.lower() else 0

    return sorted(names, key=said, reverse=True)


def _usable() -> list[Entry]:
    """The index without the networks of what is not installed."""
    if importlib.util.find_spec("timm") is not None:
        return list(read_index().networks)
    kept = []
    for entry in read_index().networks:
        if names := tuple(name for name in entry.names if not name.startswith(TIMM)):
            kept.append(replace(entry, names=names))
    return kept
