"""The section on layers: their precisions, and what each costs."""

from __future__ import annotations

from collections import Counter

from dlx_deploy.report.page.facts import Layers, LayerSeen
from dlx_deploy.report.page.figures import sensitivities, strip
from dlx_deploy.report.page.parts import Section, Table
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.runtime.words import percent

__all__ = ["layer_section"]


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
