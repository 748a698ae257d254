"""Classes as what networks answer: one of several, by logits [N, classes]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.training.hooks import Metric

__all__ = ["Classes"]


@dataclass(frozen=True)
class Classes:
    """The one output ``logits``, float32[N, classes]; targets are labels int64[N]."""

    @property
    def metric(self) -> Metric:
        """The share of samples whose largest logit is at their label."""
        from dlx_deploy.nn.training.hooks import TOP1

        return TOP1

    def golden(self, outputs: Arrays, share: float, count: int) -> npt.NDArray[Any]:
        """Rows whose best class leads clearly."""
        import numpy as np

        from dlx_deploy.graph.model import OUTPUT
        from dlx_deploy.tasks.classification import clear_rows

        logits = outputs[OUTPUT]
        return clear_rows(logits, share * float(np.abs(logits).max()), count)
