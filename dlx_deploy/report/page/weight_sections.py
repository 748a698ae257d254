"""The sections on layers and on quantization."""

from __future__ import annotations

from collections import Counter

from dlx_deploy.graph.quantization.kit.decisions import Decision, Decisions
from dlx_deploy.report.page.facts import Layers, LayerSeen, TrialPoint
from dlx_deploy.report.page.figures import sensitivities, strip, tried
from dlx_deploy.report.page.parts import Section, Table
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.table import format_ms
from dlx_deploy.runtime.words import percent

__all__ = ["layer_section", "quantization_section"]


def layer_section(report: BuildReport) -> Section | None:
    """Which layer has which precision, and what each costs in INT8."""
    layers = report.layers
    if layers is None or not layers.layers:
        return None
    counted = Counter(layer.precision for layer in layers.layers)
    counts = ", ".join(f"{count} in {kind.upper()}" for kind, count in counted.most_common())
    text = [f"Chosen: {layers.precision.upper()}; {layers.reason}.", f"{len(layers.layers)} layers: {counts}."]
    table = _table(layers)
    if layers.samples:
        known = (
            f"Sensitivity by {layers.samples} validation samples: how near the answers stay to FP32 with that layer "
            "alone in INT8; the lowest SQNR costs most."
        )
        return Section("layers", "Layers", [*text, known], figures=[strip(layers, table), sensitivities(layers, table)])
    known = "What each layer costs was not looked at: INT8 kept to its budget at once, or was not held against one."
    return Section("layers", "Layers", [*text, known], figures=[strip(layers, table)])


def _table(layers: Layers) -> Table:
    header = ["layer", "precision", "SQNR alone in INT8", "same decisions", ""]
    return Table(
        header,
        [_cells(layer) for layer in layers.layers],
        right=(2, 3),
        folded="Every layer",
        caption="Layers in the order of the graph",
    )


def _cells(layer: LayerSeen) -> list[str]:
    return [
        layer.name,
        layer.precision,
        _db(layer.sqnr_db),
        "-" if layer.agreement is None else percent(layer.agreement),
        "restored to floating point" if layer.restored else "",
    ]


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def quantization_section(report: BuildReport) -> Section | None:
    """What each step of quantization gave, and what was tried to keep to its budget."""
    seen = report.quantization
    if seen is None:
        return None
    text, tables = list[str](), list[Table]()
    if seen.trials is not None and seen.trials.note:
        text.append(f"{seen.trials.note[0].upper()}{seen.trials.note[1:]}.")
    if seen.decisions is not None:
        tables += _decided(seen.decisions)
        text += [f"quantize.effort = {seen.decisions.effort}. {seen.decisions.note}".strip()]
    if not seen.points:
        return Section("quantization", "Quantization", text, tables=tables)
    title = seen.trials.title if seen.trials else ""
    samples = seen.trials.samples if seen.trials else 0
    many = "1 graph was" if len(seen.points) == 1 else f"{len(seen.points)} graphs were"
    text.append(f"{many} tried on {samples:,} samples of the validation split.")
    table = _points(seen.points, title)
    timed = [point for point in seen.points if point.latency_ms is not None]
    figures = [tried(timed, title, table)] if len(timed) > 1 else []
    return Section(
        "quantization", "Quantization", text, figures=figures, tables=tables if figures else [*tables, table]
    )


def _decided(decisions: Decisions) -> list[Table]:
    if not decisions.steps:
        return []
    header = ["step", "kept", "SQNR before", "after", "same decisions before", "after", "why not"]
    caption = f"What each step gave, by {decisions.held:,} calibration samples that were held out"
    return [Table(header, [_decision(step) for step in decisions.steps], right=(2, 3, 4, 5), caption=caption)]


def _decision(step: Decision) -> list[str]:
    shares = [step.agreement_before, step.agreement_after]
    return [
        step.step,
        "yes" if step.kept else "no",
        _db(step.sqnr_db_before),
        _db(step.sqnr_db_after),
        *("-" if share is None else percent(share) for share in shares),
        step.why,
    ]


def _points(points: tuple[TrialPoint, ...], title: str) -> Table:
    header = ["layers restored", "in INT8", title or "score", "drop at most", "budget", "latency", ""]
    rows = [
        [
            str(point.restored),
            str(point.int8_layers),
            percent(point.score),
            "-" if point.drop_upper is None else f"{100 * point.drop_upper:.2f} points",
            point.verdict,
            format_ms(point.latency_ms) + (f" ({point.latency})" if point.latency else ""),
            "chosen" if point.chosen else "",
        ]
        for point in points
    ]
    marked = frozenset(i for i, point in enumerate(points) if point.chosen)
    return Table(header, rows, right=(0, 1, 2, 3, 5), marked=marked, caption="Graphs that were tried")
