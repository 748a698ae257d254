"""What is told of a graph that was made of a network: how near it is to that, and how large."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.pipeline.stage import Metrics

if TYPE_CHECKING:
    from dlx_deploy.graph.foreign.parity import OriginalParity
    from dlx_deploy.nn.export.parity import ParityReport

__all__ = ["exported_metrics"]


def exported_metrics(path: Path, parity: ParityReport | OriginalParity) -> Metrics:
    """Of the graph at ``path``, whose answers were held against those of its network or of its original."""
    from dlx_deploy.graph.analysis.cost import model_summary

    summary = model_summary(path)
    return {
        "parity_max_abs_diff": parity.max_abs_diff,
        "parity_relative": parity.relative,
        "macs": float(summary.macs),
        "parameters": float(summary.parameters),
        "size_bytes": float(summary.size_bytes),
    }
