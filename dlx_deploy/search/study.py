"""The study: Optuna's trials in a journal beside the store, shared by workers, gone on with after a kill.

A lock of the operating system says who is at work: a dead worker frees it, and its trial is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.locks import locked, locked_at_once, store_error
from dlx_deploy.search.outcome import Outcome
from dlx_deploy.search.sampler import numbered_sampler
from dlx_deploy.search.space import Assignment, Choice, Parameter, combinations

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

__all__ = ["Done", "Study", "Taken"]

OUTCOME = "outcome"
NAME = "search"


class Done(msgspec.Struct, frozen=True):
    """A finished trial. ``same_as``: an earlier one with the same values, whose outcome this is; -1: none."""

    number: int
    values: dict[str, str]
    outcome: Outcome
    same_as: int = -1


@dataclass(frozen=True)
class Taken:
    """A trial in the hands of this worker, until ``held`` is closed; ``again``: one that a dead worker had begun."""

    number: int
    values: Assignment
    trial: optuna.Trial
    held: contextlib.ExitStack


class Study:
    """The trials of one search in ``folder``; ``energy``: it is an objective too."""

    def __init__(self, folder: Path, parameters: Sequence[Parameter], seed: int, energy: bool = False) -> None:
        self.folder = folder
        self._parameters = {one.key: one for one in parameters}
        self._distributions = {one.key: _distribution(one) for one in parameters}
        self._seed = seed
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise store_error(e, folder) from e
        with self._alone():
            self._study = _open(folder, seed, energy)

    def propose(self, first: Sequence[Assignment], trials: int) -> None:
        """Have ``first`` tried before all others, and all combinations where there are no more than ``trials``."""
        every = combinations(list(self._parameters.values()), trials)
        random.Random(self._seed).shuffle(every)
        with self._alone():
            for values in [*first, *every]:
                self._study.enqueue_trial(self._raw(values), skip_if_exists=True)

    def take(self, trials: int) -> Taken | None:
        """The next trial; ``None`` where ``trials`` are finished or at work."""
        with self._alone():
            at_work = self._take_over()
            if len(self.done()) + at_work >= trials:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # how a sampler comes to its proposal is no user's business
                trial = self._study.ask(fixed_distributions=self._distributions)
            held = locked_at_once(self._lock_of(trial.number))
            assert held is not None, "numbers are given once"
            return Taken(trial.number, self._texts(trial.params), trial, held)

    def finish(self, taken: Taken, outcome: Outcome) -> Done:
        """Write down what the trial came to."""
        from optuna.trial import TrialState

        same = self.like(taken.values)
        done = Done(taken.number, dict(taken.values), outcome, same.number if same else -1)
        figures = outcome.figures
        with self._alone():
            for miss in outcome.misses:
                taken.trial.set_constraint(miss.budget, miss.excess)
            taken.trial.set_user_attr(OUTCOME, msgspec.json.encode(done).decode())
            if outcome.state == "complete" and figures is not None:
                score, *others = figures.objectives
                self._study.tell(taken.trial, [-score, *others])
            else:
                state = TrialState.PRUNED if outcome.state == "stopped" else TrialState.FAIL
                self._study.tell(taken.trial, state=state)
        taken.held.close()
        return done

    def done(self) -> list[Done]:
        """The finished trials, in their order."""
        found = [(trial.number, trial.user_attrs.get(OUTCOME)) for trial in self._trials()]
        return [msgspec.json.decode(text, type=Done) for _, text in sorted(found) if text]

    def like(self, values: Assignment) -> Done | None:
        """The first finished trial with these values that did not fail."""
        return next((one for one in self.done() if one.values == values and one.outcome.state != "failed"), None)

    def at_work(self) -> int:
        """How many trials other workers have in their hands."""
        with self._alone():
            return self._take_over()

    def front(self) -> list[int]:
        """The numbers of the trials that came to their end and that no other one is better than in all objectives.

        Where some meet all budgets, of these alone.
        """
        complete = [one for one in self.done() if one.outcome.state == "complete"]
        meeting = [one for one in complete if one.outcome.meets] or complete
        points = {one.number: _objectives(one) for one in meeting}
        return [
            number for number, own in points.items() if not any(_dominates(other, own) for other in points.values())
        ]

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _take_over(self) -> int:
        """Have the trials of dead workers tried again; how many are in the hands of living ones."""
        from optuna.trial import TrialState

        alive = 0
        for trial in self._trials():
            if trial.state != TrialState.RUNNING:
                continue
            held = locked_at_once(self._lock_of(trial.number))
            if held is None:
                alive += 1
                continue
            with held:
                self._study.tell(trial.number, state=TrialState.FAIL)
                if trial.params:
                    self._study.enqueue_trial(trial.params)
        return alive

    def _lock_of(self, number: int) -> Path:
        return self.folder / "locks" / str(number)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker takes or finishes a trial meanwhile."""
        with locked(self.folder / "locks" / "study", lambda: None):
            yield

    def _texts(self, params: Mapping[str, object]) -> dict[str, str]:
        """Key → value as TOML spells it, of what Optuna has."""
        texts = {}
        for key, parameter in self._parameters.items():
            value = params[key]
            if isinstance(parameter, Choice):
                texts[key] = str(value)
            else:
                assert isinstance(value, int | float)
                texts[key] = parameter.text(value)
        return texts

    def _raw(self, values: Assignment) -> dict[str, object]:
        raw: dict[str, object] = {}
        for key, text in values.items():
            parameter = self._parameters[key]
            number = int if not isinstance(parameter, Choice) and parameter.whole else float
            raw[key] = text if isinstance(parameter, Choice) else number(text)
        return raw


def _objectives(one: Done) -> tuple[float, ...]:
    figures = one.outcome.figures
    assert figures is not None
    return figures.objectives


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.texts)
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.whole:
        is_log = not step
        return IntDistribution(int(low), int(high), log=is_log, step=1 if is_log else int(step))
    return FloatDistribution(low, high, log=not step, step=step or None)


def _open(folder: Path, seed: int, energy: bool) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    from dlx_deploy.search.sampler import FileLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "journal.log"
    _mend(journal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            storage = JournalStorage(JournalFileBackend(str(journal), FileLock(folder / "locks" / "journal")))
            return optuna.create_study(
                storage=storage,
                study_name=NAME,
                sampler=numbered_sampler(seed),
                directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (2 + energy)],
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as e:
            raise StoreError(
                f"{journal}: cannot be read ({type(e).__name__}: {e}); delete it: finished steps are kept in the store"
            ) from e


def _mend(journal: Path) -> None:
    """Cut off the line that a kill left half written; what comes after it would not be read."""
    try:
        data = journal.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with open(journal, "r+b") as f:
                f.truncate(len(whole))
    except FileNotFoundError:
        pass
    except OSError as e:
        raise store_error(e, journal) from e
