"""Answers whose build was judged by a function of the user's, which a package does not carry: nothing judges them."""

from __future__ import annotations

from typing import Mapping, NoReturn, Sequence, Tuple

from ..errors import InputError
from ..records import record
from .arrays import Arrays
from .classes import LABEL, LOGITS, Classes
from .grouped import group_columns
from .judging import Judging
from .slices import SliceBudgets
from .task import Budgets

__all__ = ["Unjudged", "UserClasses"]


class Unjudged:
    """What such answers are before they are classes or masks: a build judges them, and nobody does so here."""

    judging: Judging

    def recall(self, columns: Arrays, targets: Arrays) -> NoReturn:
        """Nothing: it is refused before the package answers to any sample.

        Raises:
            InputError: always.
        """
        self._refuse()

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> NoReturn:
        """Nothing.

        Raises:
            InputError: always.
        """
        self._refuse()

    def by_slice(
        self, teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]], asked: SliceBudgets
    ) -> NoReturn:
        """Nothing.

        Raises:
            InputError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"this package was judged by {self.judging.metric}, a function of who built it, which packages do not "
            "carry: verify cannot judge it, and judges by no other metric instead; the build's verdict is in its "
            "manifest, and selftest compares its answers here with the builder's"
        )


@record
class UserClasses(Unjudged, Classes):
    """As ``Classes``; a build judges their labels and logits."""

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
