"""A checkpoint that is there already: the network that it is of, and whether it needs any training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import GRAPHS
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.overview import Overview
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.nn.models.pairs import Choice
from dlx_deploy.start.wish import Choices, Wish

if TYPE_CHECKING:
    from dlx_deploy.nn.models.recognition.likeness import Likeness
    from dlx_deploy.nn.models.recognition.sketch import Shapes

__all__ = ["Given", "anchored", "given_network"]

_UNTRAINED: dict[str, object] = {"teacher.epochs": 0, "distill.enabled": False, "prune.enabled": False}
_FINE_TUNING_RATE = 0.01
"""A tenth of the default: what is learned already must not be washed out by a new head's first gradients."""


@dataclass(frozen=True)
class Given:
    """``finished``: it tells the data's classes apart already. ``side``: of the images that it reads, or 0."""

    network: Choice
    finished: bool
    side: int
    channels: int
    choices: Choices


def given_network(wish: Wish, seen: Overview) -> Given | None:
    """What somebody has trained already, beside the classes of the data; ``None`` where nothing of that is given.

    Raises:
        ConfigError: it cannot be read, or is of no network that is known or was named.
    """
    if wish.model.lower().endswith(GRAPHS):
        return _finished_graph(wish)
    return _given_checkpoint(wish, wish.checkpoint, seen) if wish.checkpoint is not None else None


def _finished_graph(wish: Wish) -> Given:
    if wish.checkpoint is not None:
        raise ConfigError(f"--checkpoint {wish.checkpoint}: {wish.model} has its weights in it; leave one of them out")
    if not Path(wish.model).is_file():
        raise ConfigError(f"--model {wish.model}: no such file; give an ONNX file or a torch.export program")
    note = "images are as large as they are; a graph of one size says on the first build which data.height it reads"
    return Given(Choice(wish.model), True, 0, 0, Choices(_UNTRAINED, {"teacher.epochs": "a finished network"}, (note,)))


def _given_checkpoint(wish: Wish, path: Path, seen: Overview) -> Given:
    from dlx_deploy.nn.weights.class_match import same_classes
    from dlx_deploy.nn.weights.contents import read_contents, taken_state

    contents = read_contents(path)
    key, shapes = taken_state(contents, path)
    names = contents.facts.classes
    state = next((state for state in contents.facts.states if state.key == key), None)
    outputs, channels = (state.outputs, state.channels) if state else (0, 0)
    network, side = Choice(wish.model), 0
    notes = [_UNKNOWN] if seen.height else []
    if not is_user(wish.model):
        one = _recognised(wish, path, shapes)
        network, side, outputs, channels = Choice(one.name, dict(one.arguments)), one.side, one.classes, one.channels
        notes += [_twins(path, one)] if one.others and not wish.model else []
    finished = outputs == len(seen.classes) and (not names or same_classes(names, seen.classes))
    values: dict[str, object] = {"teacher.checkpoint": anchored(path, wish.file)}
    if finished:
        values |= _UNTRAINED
        reasons = {"teacher.epochs": "the checkpoint tells the data's classes apart already: nothing is trained"}
        notes += [] if names else [_UNNAMED]
        return Given(network, True, side, channels, Choices(values, reasons, tuple(notes)))
    why = f"the checkpoint tells {outputs} classes apart, the data {len(seen.classes)}"
    if outputs == len(seen.classes):
        why = "the checkpoint's classes have other names than the data's"
    values |= {"teacher.new_head": True, "teacher.learning_rate": _FINE_TUNING_RATE}
    reasons = {"teacher.new_head": f"{why}: all but its last layer is kept"}
    return Given(network, False, side, channels, Choices(values, reasons, tuple(notes)))


def _recognised(wish: Wish, path: Path, shapes: Shapes) -> Likeness:
    """The registered network that a checkpoint is of, of those that are named alone where one is."""
    from dlx_deploy.nn.models.recognition.likeness import compared_with, likely_networks

    wish.say(f"{path}: looking for the network that it is of")
    found = [compared_with(wish.model, shapes)] if wish.model else likely_networks(shapes, wish.progress, path.stem)
    one = next(iter(found), None)
    if one is not None and one.exact:
        return one
    near = f"; the nearest is {one.name}, {one.differences.share:.0%} of its tensors" if one else ""
    raise ConfigError(
        f"{path}: is of {f'no network {wish.model!r}' if wish.model else 'no registered network'}{near}; see: "
        f"dlx-deploy inspect {path}, and name its network by --model, FILE.py:FUNCTION for your own"
    )


_UNKNOWN = (
    "no file of weights says how images were prepared when they were trained: set data.height, mean, std, resize, "
    "crop_fraction and interpolation as they were, where they were others"
)
_UNNAMED = "the checkpoint names no classes: its outputs are taken in the sorted order of the data's (teacher.classes)"


def _twins(path: Path, one: Likeness) -> str:
    others = ", ".join(one.others[:3])
    return f"{path} may as well be of {others}, which have tensors of the same shapes: check teacher.model"


def anchored(path: Path, file: Path) -> str:
    """``path`` as the configuration ``file`` names it: relative to its folder if it is below that, else absolute."""
    relative = os.path.relpath(path.resolve(), file.resolve().parent)
    return str(path.resolve()) if relative.startswith("..") else Path(relative).as_posix()
