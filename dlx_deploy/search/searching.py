"""The search itself: trial after trial until there are enough or time is over, then what was chosen, as files."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import structs

import dlx_deploy
from dlx_deploy.building import DEFAULT_CONFIG, build_for, find_config, load_work
from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.pipeline.check import check_build
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.execution import Watcher
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.stage import Tree
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.search.hopeless import check_budgets
from dlx_deploy.search.space import Assignment, Choice, Parameter, default_space, parse_space
from dlx_deploy.search.view import SearchView, TrialRow, row_of_trial, trial_line

__all__ = ["Search", "search"]

NEEDED = {"optuna": "optuna", "matplotlib": "matplotlib", "tomlkit": "tomlkit"}
"""Distribution → module."""
SCHEMA = 1
"""Of what the name of a study is the hash of."""


@dataclass(frozen=True)
class Search:
    """What was asked. ``output``: the folder of the chosen ``deploy.toml`` and of the plot."""

    config: Path | None
    targets: tuple[str, ...]
    overrides: tuple[str, ...]
    store: Path
    trials: int
    minutes: float
    output: Path
    watch: Watcher
    say: Callable[[str], None]


@dataclass(frozen=True)
class _Base:
    """What all trials have in common. ``source``: the user's file, if there is one; ``config``: what it says, as it was
    read; ``build``: of that, with what the weights say of the data."""

    asked: Search
    source: Path | None
    config: Config
    build: Build
    parameters: tuple[Parameter, ...]
    study: str

    def varied(self, values: Assignment) -> Config:
        """The configuration of a trial.

        Raises:
            ConfigError: as ``load_config``.
        """
        given = [f"{key}={text}" for key, text in values.items()]
        for section in ("distill",):
            model, arguments = f"{section}.model", f"{section}.arguments"
            if model in values and arguments not in values:  # else those of another model would be none
                kept = _toml(getattr(self.config, section).arguments)
                given.insert(0, f"{arguments}={kept}")
        return find_config(self.source, [*self.asked.overrides, *given])

    def build_of(self, config: Config) -> Build:
        """A trial's build, with the data as they are for all."""
        return build_for(structs.replace(config, data=self.build.config.data), self.build.target)


def search(asked: Search) -> SearchView:
    """What the trials came to, once there are ``asked.trials`` or the time is over.

    Raises:
        ConfigError: the configuration, the space or a budget is not valid. EnvironmentMissing: an extra is not here.
    """
    if not 0 < asked.minutes < math.inf:
        raise ConfigError(f"--minutes is {asked.minutes:g}; rule: more than 0")
    deadline = time.monotonic() + 60 * asked.minutes
    _require()
    base = _base(asked)
    from dlx_deploy.search.study import Study
    from dlx_deploy.search.trial import TrialStore, run_trial

    folder = asked.store / "search" / base.study
    study = Study(folder, base.parameters, base.config.seed)
    for parameter in base.parameters:
        asked.say(f"search: {parameter}")
    trials = min(asked.trials, _count(base.parameters))
    study.propose(_as_it_stands(base), trials)
    while time.monotonic() < deadline:
        taken = study.take(trials)
        if taken is None:
            break
        with taken.held:
            known = study.like(taken.values)
            store = TrialStore(asked.store, folder)
            outcome = (
                known.outcome if known else run_trial(base.build_of(base.varied(taken.values)), store, asked.watch)
            )
            asked.say(trial_line(study.finish(taken, outcome), trials))
    done, front = study.done(), set(study.front())
    rows = tuple(row_of_trial(one, one.number in front) for one in done)
    return _delivered(base, rows, trials, study.at_work())


def _require() -> None:
    missing = [name for name, module in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise EnvironmentMissing(
            f"search needs {', '.join(missing)}, not installed here; install with: {install_command('search')}"
        )


def _base(asked: Search) -> _Base:
    source = asked.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
    config = find_config(source, asked.overrides)
    targets = asked.targets or config.targets
    if len(targets) != 1:
        raise ConfigError(
            f"targets are {', '.join(targets)}; rule: a search is for one, whose latency it weighs; name it by --target"
        )
    config = structs.replace(config, targets=tuple(targets))
    work = load_work(config, targets, None, asked.store)
    for note in work.notes:
        asked.say(note)
    (build,) = work.builds
    parameters = parse_space(config.search.space or default_space(config, build.target))
    check_budgets(config, build.target)
    base = _Base(asked, source, config, build, parameters, _study(config, build, parameters, work.store))
    _check_values(base)
    return base


def _check_values(base: _Base) -> None:
    """Nothing, if each value is valid beside what the configuration says of the rest.

    Raises:
        ConfigError: names key, value and rule.
    """
    for parameter in base.parameters:
        for text in parameter.extremes:
            try:
                config = base.varied({parameter.key: text})
                _refuse_idle(parameter.key, config, base)
                check_build(base.build_of(config))
            except ConfigError as e:
                said = str(e).removeprefix(f"--set {parameter.key}={text}: ")
                raise ConfigError(f"search.space has {parameter.key} = {text}: {said}") from e


def _refuse_idle(key: str, config: Config, base: _Base) -> None:
    """A key of a table that is left out changes nothing."""
    section = key.partition(".")[0]
    table = getattr(config, section, None)
    switched = f"{section}.enabled" in {one.key for one in base.parameters}
    if getattr(table, "enabled", True) is False and not switched:
        raise ConfigError(f"{section}.enabled is false, and then it changes nothing; rule: with {section}.enabled true")


def _count(parameters: tuple[Parameter, ...]) -> int:
    """How many combinations there are; of ranges without steps, no end."""
    counts = []
    for one in parameters:
        if isinstance(one, Choice):
            counts.append(len(one.texts))
        elif one.step:
            counts.append(math.floor((one.high - one.low) / one.step + 1e-9) + 1)
        else:
            return 2**31
    return math.prod(counts)


def _as_it_stands(base: _Base) -> list[dict[str, str]]:
    """The values that the configuration itself has, where the space has all of them: the first trial."""
    values = {}
    for one in base.parameters:
        value: object = msgspec.to_builtins(base.config)
        for part in one.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return []
        text = _toml(value)
        if isinstance(one, Choice):
            if text not in one.texts:
                return []
        elif not (
            isinstance(value, int | float) and one.low <= value <= one.high and _on_step(value, one.low, one.step)
        ):
            return []
        values[one.key] = text
    return [values]


def _on_step(value: float, low: float, step: float) -> bool:
    return not step or abs((value - low) / step - round((value - low) / step)) < 1e-6


def _toml(value: object) -> str:
    from dlx_deploy.config.template import toml_value

    return toml_value(value)


def _study(config: Config, build: Build, parameters: tuple[Parameter, ...], store: Store) -> str:
    """The name of the study: trials are compared only where all that is not varied is the same."""
    files = {
        f"{step.name}.{name}": store.digest_of(source.root, source.names(source.root))
        if isinstance(source, Tree)
        else store.digest_of(source)
        for step in build.steps
        for name, source in step.inputs.items()
        if isinstance(source, Tree | Path)
    }
    document = {
        "schema": SCHEMA,
        "dlx_deploy": dlx_deploy.__version__,
        "stages": {step.name: step.stage.version for step in build.steps},
        "config": msgspec.to_builtins(structs.replace(config, threads=0)),
        "space": [str(one) for one in parameters],
        "target": msgspec.to_builtins(build.target),
        "device": dict(build.device.identity) if build.device else {},
        "files": files,
    }
    return f"{config.name}-{build.target_name}-{hashlib.sha256(canonical_json(document)).hexdigest()[:16]}"


def _delivered(base: _Base, rows: tuple[TrialRow, ...], asked: int, at_work: int) -> SearchView:
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
    from dlx_deploy.search.plot import plot

    files = {"plot": (output / "front.svg", plot(view))}
    if chosen is not None:
        files["file"] = (output / "deploy.toml", _chosen_file(base, chosen))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, data in files.values():
            write_atomically(path, data)
    except OSError as e:
        raise ConfigError(f"--output {output}: cannot be written ({e.strerror}); name another folder") from e
    return structs.replace(view, **{name: str(path) for name, (path, _) in files.items()})


def _chosen_file(base: _Base, chosen: TrialRow) -> bytes:
    from dlx_deploy.search.chosen import chosen_text

    figures = chosen.figures
    assert figures is not None
    values = ", ".join(f"{key} = {text}" for key, text in chosen.values.items())
    reason = f"Chosen by dlx-deploy search, trial {chosen.number} of study {base.study}:\n{values}"
    wanted = structs.replace(base.varied(chosen.values), targets=base.config.targets)
    return chosen_text(base.source, wanted, base.asked.output.resolve(), reason).encode()


def _order(row: TrialRow, choose: str) -> tuple[float, ...]:
    """The smaller the better: by what is asked for, then by the others."""
    figures = row.figures
    assert figures is not None
    objectives = {"latency": figures.latency_ms, "size": float(figures.size_bytes), "accuracy": -figures.score}
    return (objectives.pop(choose), *objectives.values(), row.number)
