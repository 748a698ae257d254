"""From labelled samples to a data set on disk: split, decode or encode, measure, write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dlx_deploy.config import Data
from dlx_deploy.nn.data.dataset import Header, Labels, write_groups, write_header
from dlx_deploy.nn.data.drawing import Drawable, draw_calibration, draw_splits
from dlx_deploy.nn.data.slices import SLICES, write_slices
from dlx_deploy.nn.data.splits import Indices, Part

__all__ = ["DataSource", "prepare"]

_WRITTEN = ("train", "validation", "test", "calibration")


class DataSource(Drawable, Protocol):
    """Labelled samples, by the split that they come in: ``train``, and maybe ``validation``, ``test`` and others of
    ``calibration``; or without ``train``, where nothing is trained.

    Where it also has ``groups``, split → int64[N], no two splits that are drawn share a group. ``slices``:
    split → what each sample has in the columns of ``data.slices``.
    """

    @property
    def counts(self) -> Mapping[str, float]:
        """What was left out while listing: metrics."""
        ...

    def write(self, out: Path, name: str, part: Part) -> Part:
        """Write the inputs of one split; that of ``train`` comes first. Gives back what of ``part`` could be read."""
        ...

    def separate(self, out: Path, parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[str, float]]:
        """The written ``parts`` without inputs that are in another, and metrics of what was found."""
        ...

    def write_targets(self, out: Path, name: str, part: Part) -> None:
        """Write the targets of one split, once it is what it stays; of ``train`` first."""

    def draw(self, out: Path, drawn: Indices) -> None:
        """Write the inputs of the calibration split: some of ``train``."""

    def header(self, out: Path, counts: Mapping[str, int]) -> Header:
        """What ``dataset.json`` says."""
        ...


def prepare(source: DataSource, config: Data, out: Path, seed: int) -> dict[str, float]:
    """Write what ``source`` gives into the folder ``out``, split as ``config`` says; gives back its counts.

    Slices of the test split, where some are asked for, are written beside ``out``.

    Raises:
        DataError: the images or texts, their files or the splits cannot be used.
        EnvironmentMissing: a library that reads them is not installed.
    """
    parts = draw_splits(config, source, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in (name for name in _WRITTEN if name in parts):
        parts[name] = source.write(out, name, parts[name])
    parts, counted = source.separate(out, parts)
    train = parts["train"]
    if "calibration" not in parts:
        drawn = draw_calibration(config, source.strata["train"][train.positions], seed)
        source.draw(out, drawn)
        parts = {**parts, "calibration": Part(train.origin, train.positions[drawn])}
    parts = {"train": train, **parts}
    for name, part in parts.items():
        source.write_targets(out, name, part)
    if config.slices:
        test = parts["test"]
        rows = getattr(source, "slices")[test.origin]  # noqa: B009  # not every source has them
        write_slices(out.with_name(SLICES), config.slices, [rows[i] for i in test.positions])
    groups: Mapping[str, Labels] = getattr(source, "groups", {})
    for name in ("validation", "test"):
        if name in parts and parts[name].origin in groups:
            write_groups(out, name, groups[parts[name].origin][parts[name].positions])
    counts = {name: len(part.positions) for name, part in parts.items()}
    write_header(out, source.header(out, counts))
    sizes = {f"{name}_{source.noun}": float(n) for name, n in counts.items()} | {"classes": float(len(source.classes))}
    return {**sizes, **source.counts, **counted, **_tested_groups(source, parts)}


def _tested_groups(source: DataSource, parts: Mapping[str, Part]) -> dict[str, float]:
    """How many groups the test samples come from, where there are groups."""
    part = parts.get("test")
    groups = getattr(source, "groups", {}).get(part.origin) if part else None
    return {} if groups is None or part is None else {"test_groups": float(len(set(groups[part.positions].tolist())))}
