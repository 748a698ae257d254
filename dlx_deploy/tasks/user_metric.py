"""Answers by a function of the user's: ``metric(…, weights) -> number``, bounded by a paired bootstrap.

It gets arrays with a row for each of m samples, by the task which ones, and weights float64[m], whole numbers from 1:
how often each sample was drawn. What was not drawn it does not get. Higher is better, 0..1; NaN where it has no value.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.statistics.resampled import Bounds, Drops
from dlx_deploy.tasks.gates import CONSTANT
from dlx_deploy.tasks.resampled import ResampledComparison
from dlx_deploy.tasks.told_resamples import told
from dlx_deploy.tasks.user_file import FEWEST, check_file
from dlx_deploy.tasks.user_function import UserFunction
from dlx_deploy.tasks.user_slices import InSlices, refuse_slow_slices
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.statistics.scored import Scored
    from dlx_deploy.runtime.statistics.weighted import Score, Units
    from dlx_deploy.runtime.tasks.slice_scores import SliceMetric
    from dlx_deploy.tasks.user_function import Rows

    Values = NDArray[np.float64]

__all__ = ["Given", "UserComparison"]

MOST_S = 1800.0
"""CPU seconds that the resamples of one model may take, by what one call took."""
_ABOVE = 4
"""Resamples that lie above a bound, at least."""


@dataclass(frozen=True)
class Given:
    """What a function is given of each of several models: samples, then the extras of ``statistics.weighted``, first
    the right ones. ``keys``: the content of each sample; ``shares``: how often an extra sample is like which."""

    models: tuple[Rows, ...]
    keys: list[bytes]
    shares: Values


@dataclass(frozen=True)
class UserComparison(ResampledComparison):
    """What functions for all kinds of answers share; each kind has ``given`` and ``constants`` of its own. ``file``:
    where the function ``title`` is. ``takes``: its arguments, in words. ``progress`` hears how many of the resamples
    are done.

    Evidence has ``constant`` too, of the teacher: how many classes there are is known of answers alone.
    """

    file: Path = Path()
    takes: str = ""
    progress: Progress = silent

    def given(self, statistics: Sequence[Arrays]) -> Given:
        """What the function is given of each model's statistic, on the same samples."""
        raise NotImplementedError

    def constants(self, statistic: Arrays) -> Iterator[Rows]:
        """What it is given of answers that are always the same class, for each that samples have."""
        raise NotImplementedError

    def watched(self, progress: Progress) -> UserComparison:
        """The same, which tells ``progress`` how far it is."""
        return replace(self, progress=progress)

    def check(self, budgets: Gate) -> None:
        """What others that are resampled are held to, the file, and whether its resamples tell such a bound."""
        super().check(budgets)
        count = check_file(self.file, self.title)
        if count * (1 - budgets.confidence) < _ABOVE - 1e-6:
            raise ConfigError(
                f"gate.confidence is {budgets.confidence:g}, and RESAMPLES in {self.file} is {count}: a bound needs "
                f"{_ABOVE} of them above it; raise RESAMPLES, or set gate.confidence = {1 - _ABOVE / count:g} or less"
            )

    def score(self, statistic: Arrays) -> float:
        """What the function gives."""
        from dlx_deploy.runtime.statistics.weighted import weighted_value

        scores, units = self._read([statistic])
        self._refuse_none(scores[0], units)
        return weighted_value(scores[0], units)

    def bounds(self, statistic: Arrays) -> Bounds:
        """Of what the function gives."""
        from dlx_deploy.runtime.statistics.weighted import weighted_bounds

        (score,), units = self._read([statistic])
        count = self._resamples(score, units)
        return weighted_bounds(self._told(score, 2 * count), units, count)[1]

    def drops(self, teacher: Arrays, model: Arrays) -> Drops:
        """Of what the function gives."""
        from dlx_deploy.runtime.statistics.weighted import weighted_drops

        (first, second), units = self._read([teacher, model])
        count = self._resamples(first, units)
        told = self._told(first, 2 * count), self._told(second, 2 * count)
        return weighted_drops(told, units, count)

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """Bounds of the score and of its drop, and of the teacher beside itself what one answer to everything gets."""
        found = super().evidence(teacher, model)
        return {**found, CONSTANT: self._constant(teacher)} if teacher is model else found

    @property
    def in_slices(self) -> SliceMetric:
        """What the function gives of some of the samples."""
        return InSlices(self.title, self.lost, self)

    def slice_scores(
        self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]], judged: bool
    ) -> tuple[tuple[Scored, ...], tuple[Bounds, ...]]:
        """As others, where the resamples of all slices take no more than those of one model may."""
        if judged:
            refuse_slow_slices(self, teacher, columns, MOST_S)
        return super().slice_scores(teacher, model, columns, judged)

    def call_seconds(self, statistic: Arrays) -> float:
        """CPU seconds of a call; 0 of one that fails."""
        with suppress(ConfigError):
            (score,), units = self._read([statistic])
            started = time.process_time()
            score(units.whole)
            return time.process_time() - started
        return 0.0

    def facts(self, targets: Arrays) -> dict[str, float]:
        """Nothing that targets alone tell."""
        return {}

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """As others, with the constant that is evidence here."""
        return super().judge(budgets, _with_constant(accuracy))

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """As others, with the constant that is evidence here."""
        return super().shipped_notes(budgets, _with_constant(accuracy))

    def _constant(self, statistic: Arrays) -> float:
        """The best of answers that are always the same class, one that samples have."""
        import numpy as np

        function, best = self._function(), 0.0
        for rows in self.constants(statistic):
            value = function.value(rows, np.ones(len(rows[0])))
            best = max(best, 0.0 if np.isnan(value) else value)
        return best

    def _read(self, statistics: Sequence[Arrays]) -> tuple[tuple[Score, ...], Units]:
        """What the function makes of each model's statistic, once it has shown that it reads its weights."""
        from dlx_deploy.runtime.statistics.weighted import Units
        from dlx_deploy.runtime.tasks.grouped import groups_of

        given, function = self.given(statistics), self._function()
        units = Units.ordered(given.keys, groups_of(statistics[-1]), given.shares)
        function.check_weights(given.models[0])
        return tuple(_score(function, rows) for rows in given.models), units

    def _told(self, score: Score, total: int) -> Score:
        """``score``, telling how many of the ``total`` resamples, of a model and from both sides, are done."""
        return told(score, total, self.progress, self.title, step=1)

    def _function(self) -> UserFunction:
        return UserFunction.loaded(self.file, self.title, self.name, self.takes)

    def _resamples(self, score: Score, units: Units) -> int:
        """As the file says.

        Raises:
            ConfigError: they would take too long.
        """
        count, started = check_file(self.file, self.title), time.process_time()
        self._refuse_none(score, units)
        seconds = 6 * count * (time.process_time() - started)  # bounds, and drops of two models, from either side
        if seconds > MOST_S:
            raise ConfigError(
                f"gate.metric is {self.name!r}: by one call its {count} resamples take {seconds:.0f} s for each model, "
                f"over {MOST_S:.0f} s; make the function faster, or write RESAMPLES = {FEWEST} (or more) in its file"
            )
        return count

    def _refuse_none(self, score: Score, units: Units) -> None:
        import numpy as np

        if np.isnan(score(units.whole)[0]):
            raise ConfigError(
                f"gate.metric is {self.name!r}: the function gives NaN on these samples; must be a number"
            )


def _with_constant(accuracy: Accuracy) -> Accuracy:
    """With what is evidence of the teacher; a release in its place has none, and is asked for none."""
    import msgspec

    reference = accuracy.row(REFERENCE)
    if CONSTANT not in reference.evidence:
        return accuracy
    return msgspec.structs.replace(accuracy, facts={**accuracy.facts, CONSTANT: reference.number(CONSTANT)})


def _score(function: UserFunction, rows: Rows) -> Score:
    import numpy as np

    def score(weights: Values) -> Values:
        return np.array([function.value(rows, row) for row in weights])

    return score
