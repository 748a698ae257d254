"""What was tried to keep INT8 within its budget: ``trials.json``, ``sensitivity.json``, what each layer costs, and the
graphs themselves, for whoever knows how fast the target is.

``quantize`` is shared by boards that quantize and judge alike, so what it keeps says nothing of any.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.targets.roofline import LayerCost

__all__ = [
    "GRAPHS",
    "SCHEMA",
    "JudgedBy",
    "LayerSensitivity",
    "Sensitivity",
    "Trial",
    "Trials",
    "TriedGraph",
    "TriedGraphs",
    "read_graphs",
    "read_sensitivity",
    "read_trials",
    "written",
]

SCHEMA = 1
GRAPHS = "graphs.json"
"""In the folder of the graphs."""

JudgedBy = Literal["bound", "drop", "fp32"]
"""``bound``: the network in FP32 is within the budget by its upper bound, so INT8 must be; ``drop``: the samples are
too few to show that even of FP32; ``fp32``: FP32 is beyond the budget itself, which counts from FP32 then."""


class LayerSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that share their weights, mostly one: how near the answers stay to the network's with it alone in INT8.

    ``agreement``: 0 to 1, the share of decisions that are the same; ``None`` where nothing is decided. ``restored``:
    whether the graph that ships has it in floating point.
    """

    layers: tuple[str, ...]
    sqnr_db: float
    agreement: float | None
    restored: bool = False


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """``sensitivity.json``: the costliest first, by ``samples`` validation inputs. Empty: it was not looked at.

    It knows no budget, so that another one reruns nothing that reads it.
    """

    schema: int = SCHEMA
    samples: int = 0
    layers: tuple[LayerSensitivity, ...] = ()

    @property
    def left(self) -> Sequence[LayerSensitivity]:
        """What is still in INT8."""
        return [layer for layer in self.layers if not layer.restored]

    def with_restored(self, names: Collection[str]) -> Sensitivity:
        """The same, of a graph that has the layers ``names`` in floating point."""
        layers = [msgspec.structs.replace(x, restored=set(x.layers) <= set(names)) for x in self.layers]
        return msgspec.structs.replace(self, layers=tuple(layers))


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A graph: so many of the costliest groups ``restored`` to floating point.

    ``score``: on the validation split; ``drop`` against the teacher and its one-sided bound ``drop_upper``: ``None``
    where the score is no lower than that of FP32. ``sqnr_db``: its answers beside those of FP32, where layers were
    looked at.
    ``int8_macs``: the share (0 to 1) of multiply-accumulates that are left in INT8, what its speed rests on.
    ``trained``: whether its weights and scales were learned under the rounding.
    """

    restored: tuple[str, ...] = ()
    int8_layers: int
    int8_macs: float
    score: float
    drop: float | None
    drop_upper: float | None
    sqnr_db: float | None = None
    verdict: Literal["met", "missed"]
    trained: bool = False


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """``trials.json``. ``note``: why nothing was tried, or how it ended; empty where INT8 kept to the budget at once.

    ``samples``: of the validation split. ``fp32_score``: of the network that was quantized. ``judged_by`` and what is
    of the teacher are empty where it was not asked, as INT8 was no worse than FP32.
    """

    schema: int = SCHEMA
    metric: str = ""
    title: str = ""
    samples: int = 0
    max_drop: float | None = None
    confidence: float | None = None
    judged_by: JudgedBy | Literal[""] = ""
    reference_score: float | None = None
    fp32_score: float | None = None
    fp32_drop: float | None = None
    note: str = ""
    trials: tuple[Trial, ...] = ()
    restored: tuple[str, ...] = ()
    """Of the graph that ships."""

    @property
    def met(self) -> bool:
        """Whether no graph missed the budget, or the last one did not."""
        return not self.trials or self.trials[-1].verdict == "met"

    def after(self, before: Trials) -> Trials:
        """These, of a network that was trained as what was tried ``before`` missed the budget."""
        trained = [msgspec.structs.replace(trial, trained=True) for trial in self.trials]
        of_teacher = ("judged_by", "reference_score", "fp32_drop")
        known = {name: getattr(before, name) for name in of_teacher}
        return msgspec.structs.replace(self, trials=(*before.trials, *trained), **known)


class TriedGraph(msgspec.Struct, frozen=True, kw_only=True):
    """The graph of a trial: the precision of each of its ``layers``, and what they cost, fused.

    ``file``: in the folder, where the graph keeps to the budget and is not the one that ``quantize`` gives anyway.
    """

    trial: Trial
    layers: Mapping[str, str]
    costs: tuple[LayerCost, ...]
    file: str = ""


class TriedGraphs(msgspec.Struct, frozen=True, kw_only=True):
    """``graphs.json``: one for each of the trials, in their order; empty where no layer was restored.

    ``given``: which of them ``quantize`` gives, the fewest restored layers that keep to the budget.
    """

    schema: int = SCHEMA
    graphs: tuple[TriedGraph, ...] = ()
    given: int = 0


def written(value: Trials | Sensitivity | TriedGraphs) -> bytes:
    """JSON for people and machines; equal values give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def read_trials(path: Path) -> Trials:
    """What ``trials.json`` says."""
    return msgspec.json.decode(path.read_bytes(), type=Trials)


def read_sensitivity(path: Path) -> Sensitivity:
    """What ``sensitivity.json`` says."""
    return msgspec.json.decode(path.read_bytes(), type=Sensitivity)


def read_graphs(folder: Path) -> TriedGraphs:
    """What ``graphs.json`` in ``folder`` says."""
    return msgspec.json.decode((folder / GRAPHS).read_bytes(), type=TriedGraphs)
