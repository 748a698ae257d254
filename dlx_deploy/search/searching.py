"""The search itself: trial after trial until there are enough or time is over, then what was chosen, as files."""

from __future__ import annotations

import math
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from msgspec import structs

from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.report.studies import study_path
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.search.base import Base, Search, as_it_stands, base_of
from dlx_deploy.search.remembered import remember
from dlx_deploy.search.space import how_many
from dlx_deploy.search.view import SearchView, TrialRow, row_of_trial, trial_line

__all__ = ["search"]

NEEDED = ("optuna", "matplotlib", "tomlkit")
"""Of the extra: distributions, whose modules are called the same."""
CHOSEN_FILE, CHOSEN_BY = "deploy.toml", "Chosen by dlx-deploy search"
"""What the choice is written to, and how it begins."""


def search(asked: Search) -> SearchView:
    """What the trials came to, once there are ``asked.trials`` or the time is over.

    Raises:
        ConfigError: the configuration, the space or a budget is not valid. EnvironmentMissing: an extra is not here.
    """
    if not 0 < asked.minutes < math.inf:
        raise ConfigError(f"--minutes is {asked.minutes:g}; rule: more than 0")
    _check_output(asked.output)
    deadline = time.monotonic() + 60 * asked.minutes
    _require()
    base = base_of(asked)
    from dlx_deploy.search.study import Study
    from dlx_deploy.search.trial import TrialStore, run_trial

    folder = study_path(asked.store, base.study).parent
    study = Study(folder, base.parameters, base.config.seed, base.config.search.choose == "energy")
    for parameter in base.parameters:
        asked.say(f"search: {parameter}")
    trials = min(asked.trials, how_many(base.parameters))
    study.propose(as_it_stands(base), trials)
    while time.monotonic() < deadline:
        taken = study.take(trials)
        if taken is None:
            break
        with taken.held:
            known = study.like(taken.values)
            store = TrialStore(asked.store, folder)
            if base.build.device is not None and study.at_work() > 1:
                asked.say("warning: other trials are at work on this machine, and what is timed beside them is slower")
            make = partial(base.build_with, taken.values)
            outcome = known.outcome if known else run_trial(make, store, asked.watch)
            asked.say(trial_line(study.finish(taken, outcome), trials))
    done, front = study.done(), set(study.front())
    rows = tuple(row_of_trial(one, one.number in front) for one in done)
    return _delivered(base, rows, trials, study.at_work())


def _check_output(output: Path) -> None:
    """Nothing, unless the folder has a configuration that no search wrote: it would be replaced.

    Raises:
        ConfigError: it has.
    """
    path = output / CHOSEN_FILE
    try:
        ours = not path.exists() or path.read_bytes().startswith(f"# {CHOSEN_BY}".encode())
    except OSError as e:
        raise ConfigError(f"--output {output}: {path} cannot be read ({e.strerror}); name another folder") from e
    if not ours:
        raise ConfigError(f"--output {output}: {path} is there, and no search wrote it; name another folder")


def _require() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise EnvironmentMissing(
            f"search needs {', '.join(missing)}, not installed here; install with: {install_command('search')}"
        )


def _delivered(base: Base, rows: tuple[TrialRow, ...], asked: int, at_work: int) -> SearchView:
    """The view, once its files are written."""
    config, output = base.config, base.asked.output
    meeting = [row for row in rows if row.meets]
    chosen = min(meeting, key=lambda row: _order(row, config.search.choose), default=None)
    others = [row for row in rows if row.misses]
    nearest = min(others, key=lambda row: sum(miss.excess for miss in row.misses), default=None)
    view = SearchView(
        target=base.build.target_name,
        study=base.study,
        split="validation",
        choose=config.search.choose,
        asked=asked,
        at_work=at_work,
        trials=rows,
        chosen=None if chosen is None else chosen.number,
        nearest=None if chosen is not None or nearest is None else nearest.number,
        max_latency_p90_ms=config.gate.max_latency_p90_ms,
    )
    if not any(row.figures for row in rows):
        return view
    remember(base.asked.store, view, config.gate.latency_budgets)
    from dlx_deploy.search.plot import plot

    files = {"plot": (output / "front.svg", plot(view))}
    if chosen is not None:
        files["file"] = (output / CHOSEN_FILE, _chosen_file(base, chosen))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, data in files.values():
            write_atomically(path, data)
    except OSError as e:
        raise ConfigError(f"--output {output}: cannot be written ({e.strerror}); name another folder") from e
    return structs.replace(view, **{name: str(path) for name, (path, _) in files.items()})


def _chosen_file(base: Base, chosen: TrialRow) -> bytes:
    from dlx_deploy.search.chosen import chosen_text

    figures = chosen.figures
    assert figures is not None
    values = ", ".join(f"{key} = {text}" for key, text in chosen.values.items())
    reason = f"{CHOSEN_BY}, trial {chosen.number} of study {base.study}:\n{values}"
    known = structs.replace(base.config.search, study=base.study, trial=chosen.number)
    wanted = structs.replace(base.varied(chosen.values), targets=base.config.targets, search=known)
    return chosen_text(base.source, wanted, base.asked.output.resolve(), reason).encode()


def _order(row: TrialRow, choose: str) -> tuple[float, ...]:
    """The smaller the better: by what is asked for, then by the others."""
    figures = row.figures
    assert figures is not None
    objectives = {"latency": figures.latency_ms, "size": float(figures.size_bytes), "accuracy": -figures.score}
    if figures.energy_mj is not None:
        objectives["energy"] = figures.energy_mj
    return (objectives.pop(choose), *objectives.values(), row.number)
