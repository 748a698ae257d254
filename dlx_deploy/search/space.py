"""What a search varies: keys of the configuration and the values that each may have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dlx_deploy.config import Config
from dlx_deploy.config.strict import Table, nearest
from dlx_deploy.config.template import toml_value
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.words import shortened
from dlx_deploy.targets import Profile

__all__ = ["Assignment", "Choice", "Parameter", "Range", "combinations", "default_space", "how_many", "parse_space"]

SECTIONS = ("distill", "prune", "export", "quantize", "qat", "compile", "stages")
"""What trials may differ in. What they are compared by, data and teacher, and what is asked of them is the same."""
SWITCHED = ("distill", "prune", "qat")
STEPS = 20
"""A range of numbers is cut into so many parts, so that trials meet and share what is cached."""
WIDTHS = (0.5, 0.75, 1.0, 1.25)
REDUCTIONS = (0.0, 0.2, 0.4, 0.6)
DEPTHS = ("resnet8", "resnet20", "resnet32")

Assignment = Mapping[str, str]
"""Key → value as TOML spells it."""


@dataclass(frozen=True)
class Choice:
    """One of ``texts``, values as TOML spells them."""

    key: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.texts)}"

    @property
    def extremes(self) -> tuple[str, ...]:
        """Values that are valid only if all are."""
        return self.texts


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, of which only every ``step``-th counts (0: each, by its logarithm)."""

    key: str
    low: float
    high: float
    step: float
    whole: bool

    def __str__(self) -> str:
        by = f"in steps of {self.text(self.step)}" if self.step else "by its logarithm"
        return f"{self.key}: {self.text(self.low)} to {self.text(self.high)}, {by}"

    @property
    def extremes(self) -> tuple[str, ...]:
        """Both ends."""
        return (self.text(self.low), self.text(self.high))

    def text(self, value: float) -> str:
        """``value`` as TOML spells it; what adding up steps brought in goes."""
        return str(round(value)) if self.whole else repr(float(f"{value:.6g}"))


Parameter = Choice | Range


def parse_space(space: Table) -> tuple[Parameter, ...]:
    """The parameters of a ``search.space``.

    Raises:
        ConfigError: it is empty, or names the key, its value and the rule that it breaks.
    """
    if not space:
        raise ConfigError(
            "search.space is empty, and nothing that is enabled has a usual one; give keys and values, for instance: "
            'space = { "quantize.precision" = ["int8", "fp32"] }'
        )
    for key in space:
        _check_key(key, space)
    return tuple(_parameter(key, value) for key, value in space.items())


def combinations(parameters: Sequence[Parameter], most: int) -> list[dict[str, str]]:
    """All there are of choices alone, if these are at most so many; else none."""
    choices = [one for one in parameters if isinstance(one, Choice)]
    if len(choices) != len(parameters) or math.prod(len(one.texts) for one in choices) > most:
        return []
    keys = [one.key for one in choices]
    return [dict(zip(keys, texts, strict=True)) for texts in itertools.product(*(one.texts for one in choices))]


def how_many(parameters: Sequence[Parameter]) -> int:
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


def default_space(config: Config, profile: Profile) -> Table:
    """What is usual for what ``config`` has enabled, on that target."""
    return dict(_usual(config, profile))


def _usual(config: Config, profile: Profile) -> Iterator[tuple[str, list[object]]]:
    student = config.distill
    if student.enabled:
        width = student.arguments.get("width")
        if isinstance(width, int | float) and not isinstance(width, bool):
            yield "distill.arguments.width", [round(width * part, 4) for part in WIDTHS]
        if student.model in DEPTHS:
            yield "distill.model", list(DEPTHS)
    prune = config.prune
    if prune.enabled and prune.sparsity == "none" and (prune.reduce_macs or not prune.reduces):
        yield "prune.reduce_macs", list(REDUCTIONS)
    if config.quantize.precision == "auto" and not config.quantize.plan:
        runs = [name for name in ("int8", "fp16", "fp32") if name == "fp32" or name in profile.precisions]
        if len(runs) > 1:
            yield "quantize.precision", ["auto", *runs]
        if "int8" in runs:
            yield "quantize.effort", ["fast", "balanced"]


def _check_key(key: str, space: Table) -> None:
    section, *rest = key.split(".")
    seen = f"search.space has {shortened(key)} = {shortened(space[key])}"
    if not rest or not all(rest):
        raise ConfigError(f'{seen}; rule: SECTION.KEY, for instance "prune.reduce_macs"')
    if section not in SECTIONS:
        near = "" if section in Config.__struct_fields__ else f"; {nearest(section, SECTIONS)}"
        raise ConfigError(
            f"{seen}; rule: a key of {', '.join(SECTIONS)}: data, teacher and budgets are what trials are compared by"
            f"{near}"
        )
    above = [other for other in space if key.startswith(f"{other}.")]
    if above:
        raise ConfigError(f"{seen}, and {above[0]!r}, which holds it; rule: one of them")
    if rest == ["enabled"] and section not in SWITCHED:
        raise ConfigError(f"{seen}; rule: {', '.join(SWITCHED)} alone can be left out")


def _parameter(key: str, value: object) -> Parameter:
    if isinstance(value, dict):
        return _of_table(key, value)
    if not isinstance(value, list) or len(value) < 2:
        raise ConfigError(
            f"search.space: {key} is {shortened(value)}; rule: a list of two values or more, or a table of low and high"
        )
    if len(value) == 2 and all(map(_is_number, value)):
        return _range(key, value, {"low": value[0], "high": value[1]})
    return _choice(key, value)


def _choice(key: str, values: Sequence[object]) -> Choice:
    texts = tuple(map(toml_value, values))
    twice = [text for text in texts if texts.count(text) > 1]
    if twice:
        raise ConfigError(f"search.space: {key} has {twice[0]} twice; rule: each value once")
    return Choice(key, texts)


def _of_table(key: str, table: Table) -> Parameter:
    if set(table) == {"choice"} and isinstance(table["choice"], list) and len(table["choice"]) > 1:
        return _choice(key, table["choice"])
    if not {"low", "high"} <= set(table) <= {"low", "high", "step", "log"} or {"step", "log"} <= set(table):
        raise ConfigError(
            f"search.space: {key} is {shortened(table)}; rule: {{ choice = [two or more] }}, or low and high, and "
            "maybe step or log = true"
        )
    return _range(key, table, table)


def _range(key: str, seen: object, table: Table) -> Range:
    low, high, log = table["low"], table["high"], table.get("log", False)
    numbers = [low, high, table.get("step", 1)]
    rules = {
        "numbers, and log true or false": all(map(_is_number, numbers)) and isinstance(log, bool),
    }
    if all(rules.values()):
        rules["the first less than the second"] = low < high
        rules["with log, more than 0"] = not log or low > 0
        rules["step more than 0 and at most their difference"] = 0 < table.get("step", high - low) <= high - low
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ConfigError(f"search.space: {key} is {shortened(seen)}; rule: {broken[0]}")
    whole = all(isinstance(number, int) for number in numbers)
    step = table.get("step", (1 if whole else (high - low) / STEPS))
    return Range(key, low, high, 0 if log else step, whole)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
