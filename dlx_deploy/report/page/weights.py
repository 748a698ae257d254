"""What became of a network's weights, layer by layer: precisions, what each costs, what was tried."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dlx_deploy.graph.quantization.kit.decisions import Decisions
from dlx_deploy.graph.quantization.trials import Sensitivity, Trial, read_sensitivity, read_trials
from dlx_deploy.report.page.facts import Layers, LayerSeen, Outputs, Quantization, TrialPoint
from dlx_deploy.stages.support.fastest import read_timed
from dlx_deploy.stages.support.layer_precisions import read_precisions
from dlx_deploy.stages.support.requested import QUANTIZED_TO

__all__ = ["layers_of", "quantization_of"]


def layers_of(outputs: Outputs) -> Layers | None:
    """The layers of the graph that compile chose; ``None`` where nothing is known of them."""
    path = _last(outputs, "layers.json")
    if path is None:
        return None
    asked = read_precisions(path)
    costs = _last(outputs, "sensitivity.json")
    sensitivity = read_sensitivity(costs) if costs else Sensitivity()
    known = {name: group for group in sensitivity.layers for name in group.layers}
    chosen = _chosen(outputs) or _Chosen(asked.precision)
    same = chosen.precision == asked.precision
    layers = []
    for name, precision in asked.layers.items():
        group = known.get(name)
        layers.append(
            LayerSeen(
                name=name,
                precision=precision if same else "fp32",
                sqnr_db=group.sqnr_db if group else None,
                agreement=group.agreement if group else None,
                restored=bool(group and group.restored),
            )
        )
    return Layers(precision=chosen.precision, reason=chosen.reason, samples=sensitivity.samples, layers=tuple(layers))


class _Chosen(msgspec.Struct, frozen=True):
    """Of ``recipe.json`` what is for people."""

    precision: str
    reason: str = ""


def _chosen(outputs: Outputs) -> _Chosen | None:
    """What compile chose for the whole, if it came to that."""
    recipe = _last(outputs, "recipe.json")
    return msgspec.json.decode(recipe.read_bytes(), type=_Chosen) if recipe else None


def quantization_of(outputs: Outputs) -> Quantization | None:
    """What its steps gave and what was tried; ``None`` where nothing was quantized."""
    decided, tried = _last(outputs, "decisions.json"), _last(outputs, "trials.json", {"compile"})
    if decided is None and tried is None:
        return None
    trials = read_trials(tried) if tried else None
    timed = outputs.get("compile", {}).get("trials.json")
    points = (
        [_point(one.trial, one.latency_ms, one.latency, one.chosen) for one in read_timed(timed).trials]
        if timed
        else []
    )
    if not points and trials is not None:
        kept = max((i for i, trial in enumerate(trials.trials) if trial.restored == trials.restored), default=-1)
        points = [_point(trial, None, "", i == kept) for i, trial in enumerate(trials.trials)]
    shipped = _chosen(outputs)
    if shipped is not None and shipped.precision not in QUANTIZED_TO:  # whatever was the best of them
        points = [msgspec.structs.replace(point, chosen=False) for point in points]
    return Quantization(
        decisions=msgspec.json.decode(decided.read_bytes(), type=Decisions) if decided else None,
        trials=trials,
        points=tuple(points),
    )


def _point(trial: Trial, latency_ms: float | None, latency: str, chosen: bool) -> TrialPoint:
    return TrialPoint(
        restored=len(trial.restored),
        int8_layers=trial.int8_layers,
        score=trial.score,
        drop_upper=trial.drop_upper,
        verdict=trial.verdict,
        latency_ms=latency_ms,
        latency=latency,
        chosen=chosen,
        trained=trial.trained,
    )


def _last(outputs: Outputs, name: str, but: frozenset[str] | set[str] = frozenset()) -> Path | None:
    """The output ``name`` of the last step that has one: later steps know what earlier ones found."""
    return next((of[name] for step, of in reversed(list(outputs.items())) if name in of and step not in but), None)
