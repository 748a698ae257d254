"""Checkpoints and networks as people look at them: what a file holds, what it is likely of, which parts there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.progress import Progress, silent
from dlx_deploy.report.table import format_bytes, format_table
from dlx_deploy.runtime.views import lines_of

if TYPE_CHECKING:
    from dlx_deploy.nn.models.inputs import InputSpec
    from dlx_deploy.nn.models.recognition.likeness import Likeness
    from dlx_deploy.nn.models.recognition.sketch import Shapes
    from dlx_deploy.nn.training.parts import Part
    from dlx_deploy.nn.weights.contents import CheckpointFacts, StateFacts

__all__ = ["CheckpointView", "LikelyNetwork", "NetworkView", "view_checkpoint", "view_network"]

_SHOWN = 10


class LikelyNetwork(msgspec.Struct, frozen=True):
    """A registered network. ``same``: the share of tensors of its name and shape; ``same_shapes``: of its shapes.

    ``exact``: whether it is that network. ``settings``: what names it in ``deploy.toml``. ``differences``: in words.
    """

    name: str
    others: tuple[str, ...]
    described: str
    exact: bool
    same: float
    same_shapes: float
    settings: dict[str, object]
    differences: tuple[str, ...]

    @property
    def line(self) -> str:
        """It in one line."""
        others = f"{', '.join(self.others[:3])}{', …' if len(self.others) > 3 else ''}"
        if self.exact:
            also = f" (as of {others}: shapes cannot tell which of them was trained)" if self.others else ""
            return f"{self.described}: every tensor fits{also}"
        also = f" (as {others})" if self.others else ""
        said = f"{self.same:.0%} of the tensors have its names and shapes, {self.same_shapes:.0%} its shapes"
        return f"{self.described}: {said}{also}"


class CheckpointView(msgspec.Struct, frozen=True):
    """``taken``: the key of the state dict that a build takes; ``None``, with ``why``, where it would ask for one.

    ``likely``: what it is of, the nearest first, or the one network that was asked for.
    """

    facts: CheckpointFacts
    taken: str | None
    why: str
    likely: tuple[LikelyNetwork, ...]
    asked: str

    @property
    def data(self) -> CheckpointView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A paragraph for the file, a line for each network in it, and what it is likely of."""
        facts = self.facts
        lines = [f"{facts.path}: {facts.kind}, {format_bytes(facts.size_bytes)}, read without executing anything"]
        lines += [f"  {_state_line(state)}" for state in facts.states] or ["  no state dict (name → tensor)"]
        if facts.beside:
            lines.append(f"  beside it: {_few(facts.beside)}")
        lines.append(f"  classes: {f'{len(facts.classes)}, {_few(facts.classes)}' if facts.classes else 'not named'}")
        if self.why:
            lines.append(f"  {self.why}")
        elif len(facts.states) > 1:
            lines.append(f"  a build takes {self.taken or 'the whole'} (teacher.checkpoint_key says another)")
        return lines_of([*lines, *self._about()])

    def _about(self) -> list[str]:
        if self.asked:
            one = self.likely[0]
            return [f"compared with {one.line}", *(f"  {said}" for said in one.differences)]
        if not self.likely:
            return ["likely of: no registered network; give its code as teacher.model = 'FILE.py:FUNCTION'"]
        lines = ["likely of:", *(f"  {one.line}" for one in self.likely)]
        best = self.likely[0]
        if best.exact:
            lines += ["to build with it:", *(f"  {line}" for line in self._configured(best))]
        else:
            lines += [f"  {said}" for said in best.differences]
        return lines

    def _configured(self, network: LikelyNetwork) -> list[str]:
        """The lines of a ``deploy.toml`` that name the network and the file."""
        from dlx_deploy.config.template import toml_value

        data = {key: value for key, value in network.settings.items() if key.startswith("data.")}
        named = {key.rpartition(".")[2]: v for key, v in network.settings.items() if key.startswith("teacher.arg")}
        lines = (
            ["[data]", *(f"{key.removeprefix('data.')} = {toml_value(v)}" for key, v in data.items())] if data else []
        )
        lines += ["[teacher]", f"model = {toml_value(network.name)}"]
        lines += [f"arguments = {toml_value(named)}"] if named else []
        return [*lines, f"checkpoint = {toml_value(self.facts.path)}", "epochs = 0"]


class NetworkView(msgspec.Struct, frozen=True):
    """``parts``: from the head to the input."""

    name: str
    reads: str
    classes: int
    parameters: int
    macs: int | None
    parts: tuple[Part, ...]

    @property
    def data(self) -> NetworkView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A table of the parts, and which keys count them."""
        cost = "" if self.macs is None else f", {_count(self.macs)} multiply-accumulates"
        head = f"{self.name}, {self.classes} classes of {self.reads}: {_count(self.parameters)} parameters{cost}"
        rows = [
            [
                f"{i} (head)" if i == 0 else str(i),
                _few(part.modules),
                _count(part.parameters),
                f"{part.parameters / max(self.parameters, 1):.1%}",
                "-" if part.macs is None else _count(part.macs),
            ]
            for i, part in enumerate(self.parts)
        ]
        table = format_table(["part", "modules", "parameters", "share", "MACs"], rows, right=(2, 3, 4))
        below = len(self.parts) - 1
        tail = [
            f"teacher.frozen_groups: 0 to {below}, counted from the last row up",
            f"teacher.unfreeze_epochs: up to {below} epochs, for rows 1, 2, …; the last one holds for the rest",
        ]
        return "\n".join([lines_of([head]), table, *(tail if below else [])])


def view_checkpoint(path: Path, model: str = "", progress: Progress = silent) -> CheckpointView:
    """What the checkpoint ``path`` holds, and the networks that it is likely of, or how it differs from ``model``.

    Raises:
        ConfigError: it cannot be read, holds no network, or ``model`` is no network.
    """
    from dlx_deploy.nn.models.recognition.likeness import compared_with, likely_networks
    from dlx_deploy.nn.weights.contents import read_contents, taken_state

    contents = read_contents(path)
    taken: str | None = None
    shapes: Shapes | None = next(iter(contents.shapes.values()), None)
    why = ""
    try:
        taken, shapes = taken_state(contents, path)
    except ConfigError as e:
        why = str(e)
    found: list[Likeness] = []
    if model and shapes:
        one = compared_with(model, shapes)
        if one is None:
            raise ConfigError(f"--model {model!r}: no network that can be built without data; see: {_INSPECT}")
        found = [one]
    elif shapes:
        progress(0, 0, "looking for the networks that it is likely of")
        found = likely_networks(shapes, progress, path.stem)
    return CheckpointView(contents.facts, taken, why, tuple(_likely(one, shapes or {}) for one in found), model)


_INSPECT = "dlx-deploy inspect MODEL"


def view_network(name: str, arguments: Mapping[str, Any], classes: int, size: tuple[int, int]) -> NetworkView:
    """The parts of the network ``name``. ``size``: (channels, pixels), where it reads images.

    Raises:
        ConfigError: as ``build_model``.
    """
    from dlx_deploy.nn.models.families import family_of
    from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
    from dlx_deploy.nn.models.registry import expected_of
    from dlx_deploy.nn.training.parts import network_of, parts_of

    family = family_of(name)
    texts = family is not None and family.reads == "texts"
    spec: InputSpec = TokenInput(4096, 128) if texts else ImageInput(size[0], size[1], size[1])
    given, spec = expected_of(name, arguments, spec)
    model = network_of(name, given, classes, spec)
    parts = tuple(parts_of(model, spec))
    costs = [part.macs for part in parts]
    macs = None if None in costs else sum(cost or 0 for cost in costs)
    reads = f"{spec.noun} {' x '.join(map(str, spec.example(1).shape[1:]))}"
    return NetworkView(name, reads, classes, sum(part.parameters for part in parts), macs, parts)


def _likely(one: Likeness, shapes: Shapes) -> LikelyNetwork:
    from dlx_deploy.nn.models.recognition.diagnosis import described, explained, settings

    d = one.differences
    return LikelyNetwork(
        one.name,
        one.others,
        described(one),
        one.exact,
        d.share,
        d.shape_share,
        settings(one),
        tuple(explained(one, shapes)),
    )


def _state_line(state: StateFacts) -> str:
    where = state.key or "the file"
    prefix = f", all names under {state.prefix}" if state.prefix else ""
    ends = [f"{state.channels} channels in"] * bool(state.channels) + [f"{state.outputs} out"] * bool(state.outputs)
    broken = f"; {state.not_finite} values are NaN or infinite" if state.not_finite else ""
    return (
        f"{where}: {state.tensors} tensors, {_count(state.parameters)} numbers ({', '.join(state.dtypes)})"
        f"{prefix}{', ' + ', '.join(ends) if ends else ''}{broken}"
    )


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f", … ({len(names)})" if len(names) > _SHOWN else "")


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
