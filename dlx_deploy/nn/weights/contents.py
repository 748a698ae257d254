"""What a checkpoint's file holds, for people: state dicts, what their names begin with, classes, the rest."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from dlx_deploy.nn.models.recognition.fit import channels_of, outputs_of
from dlx_deploy.nn.models.recognition.sketch import Shapes, common_prefix, plain
from dlx_deploy.nn.weights.checkpoint_file import read_content, state_in
from dlx_deploy.nn.weights.class_order import class_names

__all__ = ["CheckpointFacts", "Contents", "StateFacts", "read_contents", "taken_state"]

_DEEPEST = 4
_TWINS = 0.95
"""Networks side by side in one state dict (student and teacher) make up so much of it, under the same names."""
_FEWEST = 8
"""A network of fewer tensors is taken for a part of one."""


class StateFacts(msgspec.Struct, frozen=True):
    """One network in the file. ``key``: where it lies, as ``teacher.checkpoint_key`` takes it; empty: the file is it.

    ``prefix``: what stands before all its names. ``not_finite``: how many of its values are NaN or infinite.
    ``outputs``, ``channels``: of its last layer and of the images that its first convolution reads, as far as shapes
    tell; 0 where they do not.
    """

    key: str
    prefix: str
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    not_finite: int
    outputs: int
    channels: int


class CheckpointFacts(msgspec.Struct, frozen=True):
    """``beside``: keys of the file that hold no network. ``classes``: the names of its outputs, if it has them."""

    path: str
    kind: str
    size_bytes: int
    states: tuple[StateFacts, ...]
    beside: tuple[str, ...]
    classes: tuple[str, ...]


class Contents(msgspec.Struct, frozen=True):
    """What is said of a file, all of it, and by ``StateFacts.key`` the tensors of each network and their shapes."""

    facts: CheckpointFacts
    content: object
    tensors: Mapping[str, Mapping[str, Tensor]]
    shapes: Mapping[str, Shapes]


def read_contents(path: Path) -> Contents:
    """What the checkpoint ``path`` holds; nothing of it is executed.

    Raises:
        ConfigError: as ``read_content``.
    """
    content = read_content(path)
    found = dict(_networks(content))
    beside = path.with_name("config.json")
    names = class_names(path) or class_names(beside if beside.is_file() else None)
    top: Mapping[object, object] = content if isinstance(content, Mapping) else {}
    facts = CheckpointFacts(
        path=str(path),
        kind=_kind(path),
        size_bytes=path.stat().st_size,
        states=tuple(_facts(key, tensors) for key, tensors in found.items()),
        beside=() if "" in found else tuple(str(k) for k, v in top.items() if not any(True for _ in _networks({k: v}))),
        classes=tuple(names or ()),
    )
    return Contents(facts, content, found, {key: _shapes(tensors) for key, tensors in found.items()})


def taken_state(contents: Contents, path: Path) -> tuple[str, Shapes]:
    """The key of the network that a build takes from the file ``path``, and the shapes of its tensors.

    Raises:
        ConfigError: there is none, or it would have to be named.
    """
    state = state_in(contents.content, "", path)
    first = next(value for value in state.values() if isinstance(value, Tensor))
    for key, tensors in contents.tensors.items():
        if any(tensor is first for tensor in tensors.values()):
            return key, contents.shapes[key]
    return "", _shapes({name: value for name, value in state.items() if isinstance(value, Tensor)})


def _kind(path: Path) -> str:
    if path.suffix.lower() == ".safetensors":
        return "safetensors"
    return "torch" if zipfile.is_zipfile(path) else "torch, in the format before 1.6"


def _networks(content: object, key: str = "", depth: int = _DEEPEST) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every network: its key, and its tensors by name."""
    if not isinstance(content, Mapping) or {"state", "param_groups"} <= content.keys():
        return  # nothing, or an optimizer
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if any(t.ndim > 1 for t in tensors.values()):
        twins = _twins(tensors)
        for prefix in twins:
            inside = {k: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
            yield prefix, inside  # as teacher.checkpoint_key takes it, wherever it lies
        if not twins:
            yield key, tensors
    for name, value in content.items() if depth else ():
        if isinstance(name, str):
            yield from _networks(value, f"{key}.{name}".lstrip("."), depth - 1)


def _twins(tensors: Mapping[str, Tensor]) -> list[str]:
    """The first parts of the names under which networks of the same names lie side by side; empty for one network."""
    groups: dict[str, set[str]] = {}
    for name in tensors:
        first, _, rest = name.partition(".")
        groups.setdefault(first, set()).add(rest)
    largest = max(groups.values(), key=len)
    same = [first for first, rest in groups.items() if rest == largest]
    covered = len(same) * len(largest)
    return same if len(same) > 1 and len(largest) >= _FEWEST and covered >= _TWINS * len(tensors) else []


def _facts(key: str, tensors: Mapping[str, Tensor]) -> StateFacts:
    shapes = plain(_shapes(tensors))
    floats = [t for t in tensors.values() if t.is_floating_point() and not t.is_quantized]
    return StateFacts(
        key=key,
        prefix=common_prefix(tensors),
        tensors=len(tensors),
        parameters=sum(t.numel() for t in tensors.values()),
        dtypes=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})),
        not_finite=sum(int((~t.isfinite()).sum()) for t in floats),
        outputs=outputs_of(shapes),
        channels=channels_of(shapes),
    )


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in tensors.items()}
