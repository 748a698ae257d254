"""Classes whose build was judged by a function of the user's, which a package does not carry: it judges by nothing."""

from __future__ import annotations

from typing import NoReturn, Tuple

from ..errors import InputError
from ..records import record
from .arrays import Arrays
from .classes import LABEL, LOGITS, Classes
from .grouped import group_columns
from .judging import Judging, MetricVerification
from .task import Budgets

__all__ = ["UserClasses", "refuse_judging"]


def refuse_judging(judging: Judging) -> NoReturn:
    """Says that a function of the user's is not here.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"this package was judged by {judging.metric}, a function of who built it, which packages do not "
        "carry: verify cannot judge it, and judges by no other metric instead; the build's verdict is in its "
        "manifest, and selftest compares its answers here with the builder's"
    )


@record
class UserClasses(Classes):
    """As ``Classes``; a build judges their labels and logits, and nobody judges them here."""

    @classmethod
    def of(cls, labels: Tuple[str, ...], judging: Judging) -> UserClasses:
        """Of these ``labels``."""
        return cls(labels, (*Classes(labels).columns, *group_columns(judging.grouped)), judging=judging)

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """Labels, int32[n], and a model's logits, float32[n, K], with what ``Classes`` keep.

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        return {**super().statistic(outputs, targets), LABEL: targets[LABEL], LOGITS: outputs[LOGITS]}

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        """Nothing: it is refused before the package answers to any sample.

        Raises:
            InputError: always.
        """
        refuse_judging(self.judging)

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> MetricVerification:  # type: ignore[override]  # of another metric
        """Nothing.

        Raises:
            InputError: always.
        """
        refuse_judging(self.judging)
