"""What all trials of a search have in common, and what may differ: found and checked before the first one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

import dlx_deploy
from dlx_deploy.building import DEFAULT_CONFIG, build_for, find_config, load_work
from dlx_deploy.config import Config
from dlx_deploy.config.template import toml_value
from dlx_deploy.devices.choice import processor_of
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.check import check_build
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.execution import Watcher
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.stage import Tree
from dlx_deploy.pipeline.store import Store
from dlx_deploy.search.hopeless import check_budgets
from dlx_deploy.search.space import Assignment, Choice, Parameter, default_space, parse_space

__all__ = ["Base", "Search", "as_it_stands", "base_of"]

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
class Base:
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
        if "distill.model" in values and "distill.arguments" not in values:
            # Named without arguments a model has none; here all models are meant to have those of the configuration.
            given.insert(0, f"distill.arguments={toml_value(self.config.distill.arguments)}")
        return find_config(self.source, [*self.asked.overrides, *given])

    def build_with(self, values: Assignment) -> Build:
        """A trial's build.

        Raises:
            ConfigError: as ``load_config``: what is valid alone may not be together.
        """
        return self.build_of(self.varied(values))

    def build_of(self, config: Config) -> Build:
        """A trial's build, with the data as they are for all."""
        return build_for(structs.replace(config, data=self.build.config.data), self.build.target)


def base_of(asked: Search) -> Base:
    """What ``asked`` means.

    Raises:
        ConfigError: the configuration, the space or a budget is not valid.
    """
    source = asked.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
    config = find_config(source, asked.overrides)
    targets = asked.targets or config.targets
    if len(targets) != 1:
        raise ConfigError(
            f"targets are {', '.join(targets)}; rule: a search is for one, whose latency it weighs; name it by --target"
        )
    unchosen = structs.replace(config.search, study="", trial=-1)  # of an earlier search, if any
    config = structs.replace(config, targets=tuple(targets), search=unchosen)
    work = load_work(config, targets, None, asked.store)
    for note in work.notes:
        asked.say(note)
    (build,) = work.builds
    parameters = parse_space(config.search.space or default_space(config, build.target))
    check_budgets(config, build.target)
    _check_energy(config, build)
    base = Base(asked, source, config, build, parameters, _study(config, build, parameters, work.store))
    _check_values(base)
    return base


def _check_energy(config: Config, build: Build) -> None:
    """Nothing, if energy is measured where trials are to be chosen by it.

    Raises:
        ConfigError: says why it is not.
    """
    if config.search.choose != "energy":
        return
    device, rule = build.device, "rule: a target that is this machine, with a sensor of its energy"
    if device is None:
        raise ConfigError(f"search.choose is 'energy', and {build.target_name} is not this machine; {rule}")
    if why := device.energy_unknown(processor_of(build.target)):
        raise ConfigError(f"search.choose is 'energy', and {device.name} does not measure it: {why}; {rule}")


def _check_values(base: Base) -> None:
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


def _refuse_idle(key: str, config: Config, base: Base) -> None:
    """A key of a table that is left out changes nothing."""
    section = key.partition(".")[0]
    table = getattr(config, section, None)
    varied = {one.key for one in base.parameters}
    enabled, switched = getattr(table, "enabled", True), f"{section}.enabled" in varied
    waits = enabled == "auto" and config.quantize.effort != "best" and "quantize.effort" not in varied
    if (enabled is False or waits) and not switched:
        seen = f"{section}.enabled is {'false' if enabled is False else repr(enabled)}"
        rest = " or quantize.effort 'best'" if waits else ""
        raise ConfigError(f"{seen}, and then it changes nothing; rule: with {section}.enabled true{rest}")


def as_it_stands(base: Base) -> list[dict[str, str]]:
    """The values that the configuration itself has, where the space has all of them: the first trial."""
    values = {}
    for one in base.parameters:
        value: object = msgspec.to_builtins(base.config)
        for part in one.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return []
        text = toml_value(value)
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
