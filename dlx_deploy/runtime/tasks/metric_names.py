"""The metrics that classes can be judged by beside top-1: names and what people call them. Standard library only."""

from __future__ import annotations

__all__ = ["TITLES"]

TITLES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
