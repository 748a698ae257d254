"""Slices by a function of the user's: where it fails on few samples one is undecided, and all may take only so long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.errors import ConfigError
from dlx_deploy.tasks.user_file import FEWEST, check_file

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.statistics.resampled import Drops
    from dlx_deploy.tasks.user_metric import UserComparison

__all__ = ["InSlices", "refuse_slow_slices"]


@dataclass(frozen=True)
class InSlices:
    """A function as it judges slices: one that fails on few samples leaves a slice undecided, and no build undone."""

    title: str
    cost: float
    function: UserComparison

    def value(self, statistic: Arrays) -> float:
        """Of a model's statistic.

        Raises:
            InputError: it has none.
        """
        with _without_value():
            return self.function.score(statistic)

    def drops(self, teacher: Arrays, package: Arrays) -> Drops:
        """From the teacher to the package.

        Raises:
            InputError: the function fails on some resamples, or has no value in many.
        """
        with _without_value():
            return self.function.drops(teacher, package)


def refuse_slow_slices(
    function: UserComparison, statistic: Arrays, columns: Mapping[str, Sequence[str]], most_s: float
) -> None:
    """Nothing, if the resamples of all slices, by one call of each, take at most ``most_s`` of CPU time.

    Raises:
        ConfigError: they take more.
    """
    from dlx_deploy.runtime.tasks.arrays import rows_of
    from dlx_deploy.runtime.tasks.slice_scores import slices_of

    slices = [rows_of(statistic, rows) for _, rows in slices_of(columns)]
    count = 4 * check_file(function.file, function.title)  # drops of two models, from either side
    seconds = count * sum(map(function.call_seconds, slices))
    if seconds > most_s:
        raise ConfigError(
            f"gate.metric is {function.name!r}: by one call of each its resamples of {len(slices)} slices take "
            f"{seconds:.0f} s, over {most_s:.0f} s; make the function faster, write RESAMPLES = {FEWEST} (or more) in "
            "its file, or leave out a column of data.slices"
        )


@contextmanager
def _without_value() -> Iterator[None]:
    from dlx_deploy.runtime.errors import InputError

    try:
        yield
    except ConfigError as e:
        raise InputError(str(e)) from e
