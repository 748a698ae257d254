"""What networks look like by the names and shapes of their tensors, in a few bytes: an index of those that have a name.

A sketch is one-permutation MinHash (Li, Owen and Zhang 2012) with a byte for each of ``SLOTS`` bins: the share of equal
bytes estimates how much two sets have in common. ``index.json`` beside this file holds sketches of ours, torchvision's
and timm's networks; ``scripts/index_networks.py`` makes it. It is a hint alone: what it proposes is built and compared.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from importlib import resources

import msgspec

__all__ = [
    "SCHEMA",
    "SLOTS",
    "Entry",
    "Index",
    "Shapes",
    "alike",
    "common_prefix",
    "entry_of",
    "plain",
    "read_index",
    "sketch_of",
    "written",
]

Shapes = Mapping[str, tuple[int, ...]]
"""The name of a tensor → its shape, in the order of the state dict."""
SCHEMA = 1
SLOTS = 32
_EMPTY = 0  # a slot that no element fell into
_COUNTER = "num_batches_tracked"


class Entry(msgspec.Struct, frozen=True):
    """Networks of one structure. ``by_name`` and ``by_shape`` are sketches, ``SLOTS`` bytes as hexadecimal digits."""

    names: tuple[str, ...]
    tensors: int
    parameters: int
    by_name: str
    by_shape: str


class Index(msgspec.Struct, frozen=True, rename={"format": "schema"}):
    """``versions``: of the libraries whose networks it knows."""

    format: int
    versions: dict[str, str]
    networks: tuple[Entry, ...]


def plain(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """``shapes`` without counters, and without what stands before every name: wrappers change neither."""
    kept = {name: shape for name, shape in shapes.items() if not name.endswith(_COUNTER)}
    prefix = common_prefix(kept)
    return {name.removeprefix(prefix): shape for name, shape in kept.items()}


def common_prefix(names: Collection[str]) -> str:
    """The modules that every name begins with, as ``module.encoder.``; empty where there are none."""
    first = next(iter(names), "")
    parts = first.split(".")[:-1]
    for count in range(len(parts), 0, -1):
        prefix = ".".join(parts[:count]) + "."
        if all(name.startswith(prefix) for name in names):
            return prefix
    return ""


def sketch_of(shapes: Shapes) -> tuple[bytes, bytes]:
    """The sketches of the names and of the shapes of what ``plain`` gave."""
    seen: Counter[str] = Counter()
    tokens = []
    for shape in shapes.values():
        text = "x".join(map(str, shape))
        seen[text] += 1
        tokens.append(f"{text}#{seen[text]}")  # how often counts
    return _sketch(shapes), _sketch(tokens)


def alike(first: bytes, second: bytes) -> float:
    """The share of slots, 0..1, in which two sketches agree, of those that either fills."""
    filled = [(a, b) for a, b in zip(first, second, strict=True) if a != _EMPTY or b != _EMPTY]
    return sum(a == b for a, b in filled) / len(filled) if filled else 0.0


def entry_of(name: str, shapes: Shapes) -> Entry:
    """The index's entry of one network."""
    kept = plain(shapes)
    by_name, by_shape = sketch_of(kept)
    return Entry((name,), len(kept), _count(kept.values()), by_name.hex(), by_shape.hex())


@functools.cache
def read_index() -> Index:
    """The index that came with this version."""
    text = (resources.files("dlx_deploy.nn.models.recognition") / "index.json").read_text(encoding="utf-8")
    return msgspec.json.decode(text, type=Index)


def written(index: Index) -> str:
    """``index`` as the text of its file: a network a line."""
    head = json.dumps({"schema": index.format, "versions": index.versions}, sort_keys=True)[:-1]
    rows = ",\n".join(msgspec.json.encode(entry).decode() for entry in index.networks)
    return f'{head}, "networks": [\n{rows}\n]}}\n'


def _count(shapes: Iterable[tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _sketch(tokens: Iterable[str]) -> bytes:
    least = [1 << 64] * SLOTS
    for token in tokens:
        value = int.from_bytes(hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        slot, rest = value % SLOTS, value // SLOTS
        least[slot] = min(least[slot], rest)
    return bytes(_EMPTY if rest == 1 << 64 else 1 + rest % 255 for rest in least)
