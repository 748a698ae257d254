"""The metrics that classes can be judged by beside top-1: names and what people call them. Standard library only."""

from __future__ import annotations

import re

__all__ = ["TITLES", "is_user_metric_name"]

TITLES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}

_USER = r"[\w.+-]{1,200}\.py:[A-Za-z_]\w{0,200}"


def is_user_metric_name(metric: str) -> bool:
    """Whether ``metric`` is ``FILE.py:FUNCTION``, a function of the user's; the file is named without its folder."""
    return re.fullmatch(_USER, metric, re.ASCII) is not None
