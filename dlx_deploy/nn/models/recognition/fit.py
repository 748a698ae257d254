"""Why a state dict does not fit a network, as names and shapes show it: classes, width, channels, depth, names."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dlx_deploy.nn.models.recognition.sketch import Shapes, plain

__all__ = [
    "Differences",
    "channels_of",
    "compared",
    "first_few",
    "has_positions",
    "last_weight",
    "outputs_of",
    "renamed",
]

_ENOUGH = 0.6
"""The share of other shapes that one ratio of widths must account for: rounding and heads spoil some."""
_FEWEST = 3
"""So few tensors in one ratio are chance."""
_HEADS = ("classifier", "fc", "head", "heads", "linear", "logits", "last_linear", "output", "heads_head", "score")
"""What the last layer is called as a rule; safetensors files hold tensors in the order of their names."""
_IMAGE_CHANNELS = (1, 2, 3, 4)
_POSITIONS = ("pos_embed", "position", "pos_embedding")
_SHOWN = 3


@dataclass(frozen=True)
class Differences:
    """How a state dict differs from that of a network; each pair is (the network's, the state dict's).

    ``classes``: rows of the last layer. ``channels``: of the images. ``kernel``: of the first convolution. ``width``:
    how many times as many channels the state dict has. ``patches``: rows of a table of positions. ``same``: tensors of
    one name and shape, of ``total``. ``same_shapes``: shapes that both have, whatever their names, of ``shapes``.
    ``unexplained``: tensors of another shape that none of this accounts for.
    """

    same: int
    total: int
    same_shapes: int
    shapes: int
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    unexplained: tuple[str, ...]
    classes: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None
    kernel: tuple[int, int] | None = None
    width: float | None = None
    patches: tuple[int, int] | None = None

    @property
    def fits(self) -> bool:
        """Whether there is no difference."""
        return self.same == self.total

    @property
    def share(self) -> float:
        """The share of tensors, 0..1, that have their name and shape in both."""
        return self.same / self.total if self.total else 0.0

    @property
    def shape_share(self) -> float:
        """The share of tensors, 0..1, whose shape the other has too."""
        return self.same_shapes / self.shapes if self.shapes else 0.0

    @property
    def head_alone(self) -> bool:
        """Whether a network with as many outputs would fit."""
        rest = (self.missing, self.surplus, self.unexplained, self.channels, self.kernel, self.width, self.patches)
        return self.classes is not None and not any(rest)


def compared(own: Shapes, given: Shapes) -> Differences:
    """How ``given`` differs from the network's ``own``, what stands before all names and counters left aside."""
    own, given = plain(own), plain(given)
    both = [name for name in own if name in given]
    reshaped = [name for name in both if own[name] != given[name]]
    shapes = Counter(_filled(own)) & Counter(_filled(given))
    left = set(reshaped)
    classes = _classes(own, given, left)
    patches = _patches(own, given, left)
    channels, kernel = _stem(own, given, left)
    width = _width(own, given, left)
    return Differences(
        same=len(both) - len(reshaped),
        total=max(len(own), len(given)),
        same_shapes=sum(shapes.values()),
        shapes=max(len(_filled(own)), len(_filled(given))),
        missing=tuple(name for name in own if name not in given),
        surplus=tuple(name for name in given if name not in own),
        unexplained=tuple(name for name in reshaped if name in left),
        classes=classes,
        channels=channels,
        kernel=kernel,
        width=width,
        patches=patches,
    )


def last_weight(shapes: Shapes) -> str:
    """The name of the last tensor with rows and columns: that of the head, as a rule; empty where there is none."""
    return next((name for name in reversed(list(shapes)) if len(shapes[name]) >= 2), "")


def channels_of(shapes: Shapes) -> int:
    """The channels of the images that a state dict of any order reads, as shapes tell; 0 where they do not."""
    seen = [shape[1] for shape in shapes.values() if len(shape) == 4]
    if list(shapes) != sorted(shapes):
        return seen[0] if seen and seen[0] in _IMAGE_CHANNELS else 0
    if 3 in seen:
        return 3
    return 1 if seen.count(1) == 1 else 0  # several are convolutions of each channel alone


def outputs_of(shapes: Shapes) -> int:
    """How many outputs a state dict of any order has: rows of what is called a head, else of the last layer; or 0."""
    heads = {name: shape for name, shape in shapes.items() if name.partition(".")[0] in _HEADS}
    name = last_weight(heads) or last_weight(shapes)
    return shapes[name][0] if name else 0


def has_positions(shapes: Shapes) -> bool:
    """Whether a tensor is a table of positions, which ties a network to one size of images."""
    return any(word in name for name in shapes for word in _POSITIONS)


def renamed(own: Shapes, given: Shapes, differences: Differences) -> list[tuple[str, str]]:
    """The first names of the network and of the state dict for tensors of one shape, where all have the same shapes."""
    own, given = plain(own), plain(given)
    if differences.shape_share < 1 or not differences.missing:
        return []
    missing = [name for name in differences.missing if own[name]]
    surplus = [name for name in differences.surplus if given[name]]
    pairs = zip(missing, surplus, strict=False)
    return [(a, b) for a, b in pairs if own[a] == given[b]][:_SHOWN]


def _filled(shapes: Shapes) -> list[tuple[int, ...]]:
    """The shapes but those of single numbers, which are counters under other names."""
    return [shape for shape in shapes.values() if shape]


def _classes(own: Shapes, given: Shapes, left: set[str]) -> tuple[int, int] | None:
    head = last_weight(own)
    if head not in left or len(given[head]) != len(own[head]):
        return None
    before, after = own[head][0], given[head][0]
    if before == after:
        return None
    left.discard(head)  # its columns are the width's matter
    for name in [name for name in left if own[name][:1] == (before,) and given[name] == (after, *own[name][1:])]:
        left.discard(name)
    return before, after


def _patches(own: Shapes, given: Shapes, left: set[str]) -> tuple[int, int] | None:
    """The rows of a table of positions, [1, rows, width] or [rows, width]."""
    for name in sorted(left):
        a, b = own[name], given[name]
        if any(word in name for word in _POSITIONS) and len(a) == len(b) >= 2 and a[-2] != b[-2]:
            if a[-1] == b[-1]:
                left.discard(name)
            return a[-2], b[-2]
    return None


def _width(own: Shapes, given: Shapes, left: set[str]) -> float | None:
    """How many times as many rows most of the other tensors have."""
    rows = {name: (own[name][0], given[name][0]) for name in left if own[name] and len(own[name]) == len(given[name])}
    ratios = [b / a for a, b in rows.values() if a and a != b]
    if len(ratios) < _FEWEST:
        return None
    ratio = statistics.median(ratios)
    explained = [name for name in rows if _scales(own[name], given[name], ratio)]
    if len(explained) < max(_FEWEST, _ENOUGH * len(left)):
        return None
    left.difference_update(explained)
    return ratio


def _scales(own: Sequence[int], given: Sequence[int], ratio: float) -> bool:
    """Whether each length is as before or ``ratio`` times that, give or take rounding."""
    return all(b == a or abs(b - a * ratio) <= max(1.0, 0.02 * b) for a, b in zip(own, given, strict=True))


def _stem(own: Shapes, given: Shapes, left: set[str]) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The channels of the images and the kernel's side, where the first convolution differs in them."""
    first = next((name for name in own if len(own[name]) == 4), "")
    if first not in given or len(given[first]) != 4:
        return None, None
    a, b = own[first], given[first]
    if a[1:] != b[1:]:
        left.discard(first)
    return (None if a[1] == b[1] else (a[1], b[1])), (None if a[2] == b[2] else (a[2], b[2]))


def first_few(names: Collection[str]) -> str:
    """The first of ``names``, and how many more there are."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
