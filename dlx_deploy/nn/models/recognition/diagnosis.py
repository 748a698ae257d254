"""Why a checkpoint does not fit the network that the configuration names, and which keys would make it fit."""

from __future__ import annotations

from collections.abc import Mapping

from dlx_deploy.config.template import toml_value
from dlx_deploy.nn.models.recognition.fit import Differences, compared, first_few, outputs_of, renamed
from dlx_deploy.nn.models.recognition.likeness import USUAL, Likeness, likely_networks
from dlx_deploy.nn.models.recognition.sketch import Shapes, plain

__all__ = ["described", "diagnosis", "explained", "settings", "words"]

_CLEAR = 0.9
"""The share of tensors from which on a network is named as the one that the checkpoint is of."""
_FALLBACK = "check model, arguments and the number of classes"


def diagnosis(own: Shapes, given: Shapes, new_head: bool = False) -> str:
    """The likely reason why the state dict of shapes ``given`` does not fit the network of ``own``, and the remedy.

    ``new_head``: the last layer is the network's own already.
    """
    differences = compared(own, given)
    if differences.head_alone and not new_head:
        return (
            f"{words(differences)[0]}: teacher.new_head = true keeps all but the last layer, or give data of the "
            "checkpoint's classes"
        )
    if other := _other_names(own, given, differences):
        return f"{other}, or name the network that it is of"
    said = [*words(differences), *_likely(own, given, new_head)]
    return "; ".join(said) if said else _FALLBACK


def _other_names(own: Shapes, given: Shapes, differences: Differences) -> str:
    named = ", ".join(f"{theirs!r} for {ours!r}" for ours, theirs in renamed(own, given, differences))
    return f"it has the network's shapes under other names ({named}): rename its keys" if named else ""


def words(differences: Differences) -> list[str]:
    """The kinds of difference, a sentence each: what the checkpoint has, and the network."""
    d = differences
    pairs = (
        (d.classes, "it tells {1} classes apart and the network {0}"),
        (d.channels, "it reads images of {1} channels and the network of {0} (data.channels)"),
        (d.kernel, "its first convolution is {1} x {1} and the network's {0} x {0}"),
        (d.patches, "it has {1} positions and the network {0}: images or patches of another size (data.height)"),
    )
    said = [text.format(*pair) for pair, text in pairs if pair]
    if d.width:
        said.append(f"its layers are {d.width:.3g} times as wide")
    return said


def settings(likeness: Likeness) -> dict[str, object]:
    """The keys of ``deploy.toml`` that name the network, and what it reads where that is unusual."""
    keys: dict[str, object] = {"teacher.model": likeness.name}
    keys |= {f"teacher.arguments.{name}": value for name, value in likeness.arguments.items()}
    if likeness.side not in (0, USUAL.height):
        keys["data.height"] = likeness.side
    if likeness.channels not in (0, USUAL.channels):
        keys["data.channels"] = likeness.channels
    return keys


def described(likeness: Likeness) -> str:
    """The network in words: ``resnet20 with width = 2.0 for 10 classes``."""
    arguments = " and ".join(f"{name} = {toml_value(value)}" for name, value in likeness.arguments.items())
    return (
        f"{likeness.name}{f' with {arguments}' if arguments else ''} for {likeness.classes} classes{likeness.unusual}"
    )


def _likely(own: Shapes, given: Shapes, new_head: bool) -> list[str]:
    """What to set so that the network is the one that the checkpoint is of; empty where it is that already."""
    likely, differences = likely_networks(given), compared(own, given)
    if not likely or likely[0].differences.share < _CLEAR:
        if differences.share >= _CLEAR:
            return []
        return [f"{_nearest(likely)}give the code of the network that it is of: teacher.model = 'FILE.py:FUNCTION'"]
    best = likely[0]
    if plain(best.shapes) == plain(own):
        return [_FALLBACK]
    keys = settings(best)
    if differences.share >= _CLEAR and not differences.patches:
        keys.pop("data.height", None)  # it is so already
    keys.pop("data.channels", None)
    if best.channels and _channels(own) not in (0, best.channels):
        keys["data.channels"] = best.channels
    if outputs_of(plain(own)) != best.classes and not new_head:
        keys["teacher.new_head"] = True
    said = "its tensors are those of" if best.exact else f"{best.differences.share:.0%} of its tensors are those of"
    return [f"{said} {described(best)}: set {_assignments(keys)}"]


def _nearest(likely: list[Likeness]) -> str:
    if not likely:
        return "no registered network has such tensors; "
    near = ((one.name, max(one.differences.share, one.differences.shape_share)) for one in likely[:3])
    shares = ", ".join(f"{name} ({share:.0%} of the shapes)" for name, share in near)
    return f"it is of none of the registered networks, the nearest are {shares}; "


def _channels(shapes: Shapes) -> int:
    return next((shape[1] for shape in shapes.values() if len(shape) == 4), 0)


def _assignments(keys: Mapping[str, object]) -> str:
    return ", ".join(f"{key} = {toml_value(value)}" for key, value in keys.items())


def explained(likeness: Likeness, given: Shapes) -> list[str]:
    """How the state dict of shapes ``given`` differs from the network, a sentence each: first from the usual one."""
    left = likeness.differences
    said = [f"{text}" for text in words(likeness.usual)]
    if likeness.exact:
        return said
    if other := _other_names(likeness.shapes, given, left):
        return [other]
    parts = (
        (left.missing, "the network has more"),
        (left.surplus, "the checkpoint has more"),
        (left.unexplained, "of another shape"),
    )
    said += [f"{text}: {len(names)} tensors of {_modules(names)}" for names, text in parts if names]
    return said


def _modules(names: tuple[str, ...]) -> str:
    return first_few(list(dict.fromkeys(name.rpartition(".")[0] or name for name in names)))
