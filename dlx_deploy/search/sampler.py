"""What Optuna is given: a sampler whose proposals rest on seed and trial alone, a lock that no dead process keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, TPESampler
from optuna.storages.journal import JournalFileOpenLock

from dlx_deploy.pipeline.locks import locked

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["FileLock", "numbered_sampler"]

RANDOM_TRIALS = 10
"""So many are drawn at random before what was seen says more."""
PRIME = 1_000_003


class FileLock(JournalFileOpenLock):
    """The operating system's, which a dead holder frees; Optuna's own stay behind for half a minute."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Wait for it."""
        self._held.enter_context(locked(self._path, lambda: None))
        return True

    def release(self) -> None:
        """Give it back."""
        self._held.close()


class NumberedSampler(BaseSampler):
    """The tree-structured Parzen estimator (Bergstra et al. 2011, for several objectives Ozaki et al. 2022), seeded for
    each trial by its number: a study that was killed goes on as it would have, and no two workers draw the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own: BaseSampler = self._of(0)

    def _of(self, number: int) -> BaseSampler:
        seed = (self._seed * PRIME + number) % 2**32
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=RANDOM_TRIALS)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin anew for this trial."""
        self._own = self._of(trial.number)
        self._own.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the estimator's."""
        return self._own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the estimator's."""
        return self._own.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the estimator's."""
        return self._own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the estimator's."""
        self._own.after_trial(study, trial, state, values)


def numbered_sampler(seed: int) -> BaseSampler:
    """The sampler of a study."""
    return NumberedSampler(seed)
