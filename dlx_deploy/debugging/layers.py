"""Which layers the loss comes from: the noise of each, and what restoring the worst of them wins back."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from onnx import ModelProto

from dlx_deploy.config.template import toml_value
from dlx_deploy.debugging.answers import Bench
from dlx_deploy.debugging.sources import Made
from dlx_deploy.graph.comparison.noise import CAP_DB, layer_noise
from dlx_deploy.graph.comparison.pairing import LayerPair, paired_layers
from dlx_deploy.graph.comparison.restored import restored
from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.kit.judge import Judge
from dlx_deploy.progress import Progress
from dlx_deploy.report.debug_facts import LayerRow, Remedy

__all__ = ["NOISE_SAMPLES", "LayerFindings", "look_at_layers"]

NOISE_SAMPLES = 256
"""Samples on which noise is measured: a sum over all of their activations needs no more."""
BETWEEN = "cpu"
"""The style of graphs in which integers pass from kernel to kernel."""
LEAST_WON = 0.1
"""Of what was lost: less is chance, and every layer in floating point costs time."""
MOST_TOGETHER = 3
"""Of the layers that win something alone, tried together; whether more are needed a build finds out by itself."""


@dataclass(frozen=True)
class LayerFindings:
    """The rows, those that win most first; the score of the package, and the SQNR of its answers, ``None`` where they
    are integers; and what to do."""

    rows: tuple[LayerRow, ...]
    answers_db: float | None
    remedy: Remedy | None


def look_at_layers(
    made: Made, reference: ModelProto, bench: Bench, scores: tuple[float, float], most: int, progress: Progress
) -> LayerFindings:
    """Of the layers that both graphs have; ``scores``: of the network and of the package. The ``most`` noisiest are
    restored, one by one.

    Raises:
        StageFailed: ONNX Runtime cannot run a graph that was made for it.
    """
    written = load(made.package.model)
    some = bench.labelled.samples[:NOISE_SAMPLES]
    pairs = paired_layers(reference, written)
    trials = _Trials(made, reference, written, bench, scores)
    noise = {found.layer.name: found for found in layer_noise(reference, written, pairs, some, bench.exact, progress)}
    shown = [pair for pair in pairs if pair.is_compressed] or [pair for pair in pairs if pair.precision != "fp32"]
    rows = {}
    for group in _groups(shown):
        least = min(group, key=lambda pair: _order(noise[pair.name].own_sqnr_db, noise[pair.name].sqnr_db))
        found = noise[least.name]
        names = tuple(pair.name for pair in group)
        rows[names] = LayerRow(
            layers=names,
            operator=least.plain.op_type,
            precision=least.precision,
            sqnr_db=found.sqnr_db,
            own_sqnr_db=found.own_sqnr_db,
        )
    by_name = {pair.name: pair for pair in shown if pair.is_compressed}
    worst = sorted(rows.values(), key=lambda row: _order(row.own_sqnr_db, row.sqnr_db))
    tried = [row for row in worst if row.layers[0] in by_name][:most]
    for number, row in enumerate([*tried, *_readers_together(tried, by_name)]):
        progress(number, most, f"{row.layers[0]} restored")
        rows[row.layers] = trials.restored(row, [by_name[name] for name in row.layers])
    ranked = sorted(rows.values(), key=_rank)
    return LayerFindings(tuple(ranked), trials.answers_db(written), trials.remedy(ranked, by_name))


class _Trials:
    """Graphs with some layers restored, and how they do."""

    def __init__(
        self, made: Made, reference: ModelProto, written: ModelProto, bench: Bench, scores: tuple[float, float]
    ) -> None:
        self._made, self._reference, self._written, self._bench = made, reference, written, bench
        self._score, self._lost = scores[1], scores[0] - scores[1]
        self._between = made.package.meta["precision"].get("style") == BETWEEN
        self._judge = Judge(reference, bench.labelled.samples[:NOISE_SAMPLES], bench.exact)

    def answers_db(self, model: ModelProto) -> float | None:
        """The SQNR of its answers; ``None`` where these are no numbers with a fraction."""
        return round(self._judge.score(model).sqnr_db, 3) if self._judge.compares else None

    def restored(self, row: LayerRow, layers: Sequence[LayerPair]) -> LayerRow:
        """``row`` with what restoring it wins."""
        model = restored(self._reference, self._written, layers, self._between)
        won = self._bench.score(model, f"{row.layers[0]} restored") - self._score
        return msgspec.structs.replace(row, won=won, answers_db=self.answers_db(model))

    def remedy(self, ranked: Sequence[LayerRow], layers: dict[str, LayerPair]) -> Remedy | None:
        """The fewest of the best layers that win most together; ``None`` where none wins a part of what was lost."""
        least = self._lost * LEAST_WON
        helpful = [row for row in ranked if row.won is not None and self._lost > 0 and row.won >= least][:MOST_TOGETHER]
        if not helpful:
            return None
        found = [(self._score + (helpful[0].won or 0.0), helpful[0].layers)]
        for count in range(2, len(helpful) + 1):
            names = tuple(dict.fromkeys(name for row in helpful[:count] for name in row.layers))
            if names == found[-1][1]:
                continue
            together = [layers[name] for name in names]
            model = restored(self._reference, self._written, together, self._between)
            found.append((self._bench.score(model, f"{count} layers restored"), names))
        score, names = max(found, key=lambda one: one[0])  # of equals the first, the fewest layers
        return Remedy(layers=names, score=score, won=score - self._score, lines=_lines(self._made, names))


def _lines(made: Made, names: Sequence[str]) -> tuple[str, ...]:
    """What has a build keep the layers in floating point, beside what it was told before."""
    asked = made.parameters("quantize")
    if asked.get("plan"):
        lines = ", ".join(f'{toml_value(name)}: {{"precision": "fp32"}}' for name in names)
        return (f'in the file that quantize.plan names, among its "layers": {lines}',)
    before = asked.get("exclude")
    kept = [one for one in before if isinstance(one, str)] if isinstance(before, list) else []
    patterns = [*kept, *(glob.escape(name) for name in names)]
    return ("[quantize]", f"exclude = {toml_value(list(dict.fromkeys(patterns)))}")


def _groups(layers: Sequence[LayerPair]) -> list[list[LayerPair]]:
    """Layers that share their weights go together: a pattern for one is for all."""
    groups: dict[str, list[LayerPair]] = {}
    for layer in layers:
        groups.setdefault(layer.plain.input[1], []).append(layer)
    return list(groups.values())


def _readers_together(tried: Sequence[LayerRow], layers: dict[str, LayerPair]) -> list[LayerRow]:
    """Those that read the same integers, as one: where their range is wrong, restoring one of them helps nobody."""
    readers: dict[str, list[LayerRow]] = {}
    for row in tried:
        readers.setdefault(layers[row.layers[0]].reads, []).append(row)
    return [
        msgspec.structs.replace(some[0], layers=tuple(dict.fromkeys(name for row in some for name in row.layers)))
        for some in readers.values()
        if len(some) > 1
    ]


def _order(own: float | None, at_end: float | None) -> float:
    return own if own is not None else at_end if at_end is not None else CAP_DB


def _rank(row: LayerRow) -> tuple[bool, float, float, float]:
    """What wins most first, of equals what brings the answers nearest; then, untried, the noisiest."""
    answers = -CAP_DB if row.answers_db is None else row.answers_db
    return row.won is None, -(row.won or 0.0), -answers, _order(row.own_sqnr_db, row.sqnr_db)
