"""The table of known wrong computations, and which of them a graph would meet on a runtime."""

from __future__ import annotations

import functools
import json
import re
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ..records import record
from .operators import Operator

__all__ = [
    "ACTIONS",
    "SCHEMA",
    "Condition",
    "Hazard",
    "HazardTable",
    "hazard_table",
    "hazards_for",
    "hazards_of",
    "read_table",
    "this_arch",
]

SCHEMA = 1
"""Of ``table.json``."""
ACTIONS = ("rewrite", "refuse", "warn")
"""*rewrite*: builds write a form that is computed right, and a graph that has the other one is refused; *refuse*: it is
not run there; *warn*: it is, and is said."""
MEMBER = "table.json"

Versions = Tuple[Tuple[str, Optional[str]], ...]
"""Ranges, both ends in them; 1.30 is all of 1.30.x, and ``None`` no end."""


@record
class Condition:
    """The operators that are computed wrong; what is empty holds for all.

    ``operators``: one of these. ``with_``: and the graph has all of these too. ``opset``: from, to (0: no end).
    ``dtypes`` and ``gives``: what the operator reads and gives. ``attributes``: one of these is set, ``unless`` one of
    these is.
    """

    operators: Tuple[str, ...] = ()
    with_: Tuple[str, ...] = ()
    opset: Tuple[int, int] = (0, 0)
    dtypes: Tuple[str, ...] = ()
    gives: Tuple[str, ...] = ()
    attributes: Tuple[str, ...] = ()
    unless: Tuple[str, ...] = ()

    def meets(self, operators: Sequence[Operator]) -> bool:
        """Whether a graph of ``operators`` has what is computed wrong."""
        there = {one.type for one in operators if not one.domain}
        return set(self.with_) <= there and any(map(self._holds, operators))

    def _holds(self, one: Operator) -> bool:
        first, last = self.opset
        return (
            not one.domain
            and (not self.operators or one.type in self.operators)
            and first <= one.opset <= (last or one.opset)
            and (not self.dtypes or one.dtype in self.dtypes)
            and (not self.gives or one.gives in self.gives)
            and (not self.attributes or bool(set(self.attributes) & set(one.attributes)))
            and not set(self.unless) & set(one.attributes)
        )


@record
class Hazard:
    """One known wrong computation: where it is, what it takes, what goes wrong, who says so, and what to do."""

    id: str
    title: str
    backends: Tuple[str, ...]
    versions: Versions
    when: Condition
    effect: str
    evidence: Tuple[str, ...]
    action: str
    remedy: str
    architectures: Tuple[str, ...] = ()

    def runs_on(self, backend: str, version: Optional[str], arch: Optional[str]) -> bool:
        """Whether the runtime is one that computes it wrong; a version or machine that is not known (``None``) is."""
        return (
            backend in self.backends
            and (version is None or any(_within(version, *span) for span in self.versions))
            and (arch is None or not self.architectures or arch in self.architectures)
        )

    @property
    def refuses(self) -> bool:
        """Whether a graph that has it is not run there."""
        return self.action != "warn"

    def where(self) -> str:
        """The runtimes, for people: ``tensorrt 10.13 to 11.1``."""
        spans = " and ".join(_span(*span) for span in self.versions)
        machines = f" on {' and '.join(self.architectures)}" if self.architectures else ""
        return f"{', '.join(self.backends)} {spans}{machines}"

    def describe(self) -> str:
        """The hazard in a sentence, with its remedy."""
        return f"{self.title} on {self.where()} ({self.id}): {self.effect}; {self.remedy}"


@record
class HazardTable:
    """The whole table and the day on which it was last looked through."""

    date: str
    hazards: Tuple[Hazard, ...]


def hazards_for(
    operators: Sequence[Operator], backend: str, version: Optional[str] = None, arch: Optional[str] = None
) -> List[Hazard]:
    """What a graph of ``operators`` would meet on ``backend``, the worst first.

    ``version``: of the runtime behind it (ONNX Runtime, TensorRT); ``arch``: as ``platform.machine()`` says it; for
    ``None`` any will do. ``operators`` are those that are run: of a graph in exact arithmetic ``in_exact(operators)``.
    """
    return [one for one in hazards_of(backend, version, arch) if one.when.meets(operators)]


def hazards_of(backend: str, version: Optional[str] = None, arch: Optional[str] = None) -> List[Hazard]:
    """All that the table says of ``backend``, whatever the graph; arguments and order as of ``hazards_for``."""
    met = [one for one in hazard_table().hazards if one.runs_on(backend, version, arch)]
    return sorted(met, key=lambda one: ACTIONS.index(one.action))


def this_arch() -> str:
    """This machine's, as the table writes it."""
    import platform

    return platform.machine() if platform.system() == "Linux" else ""


@functools.lru_cache(maxsize=1)
def hazard_table() -> HazardTable:
    """The table that travels with this runtime."""
    import pkgutil  # a build that has nothing to do reads no table

    data = pkgutil.get_data(__package__ or "", MEMBER)
    assert data is not None, MEMBER  # part of this code
    return read_table(json.loads(data.decode("utf-8")))


def read_table(values: Mapping[str, object]) -> HazardTable:
    """The table in ``values``.

    Raises:
        ValueError: a field is missing, unknown or of the wrong kind; names the entry.
    """
    if values.get("schema") != SCHEMA:
        raise ValueError(f"schema is {values.get('schema')!r}; must be {SCHEMA}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(values.get("date"))):
        raise ValueError(f"date is {values.get('date')!r}; must be a day, as 2026-11-26")
    entries = values.get("hazards")
    if not isinstance(entries, list):
        raise ValueError(f"hazards is {entries!r}; must be a list of tables")
    hazards = tuple(map(_hazard, entries))
    names = [hazard.id for hazard in hazards]
    if len(set(names)) < len(names):
        raise ValueError(f"hazards have the ids {', '.join(names)}; each must be there once")
    return HazardTable(str(values["date"]), hazards)


def _hazard(entry: object) -> Hazard:
    if not isinstance(entry, dict):
        raise ValueError(f"hazards has {entry!r}; must be tables")
    name = str(entry.get("id"))
    try:
        return _read_hazard(dict(entry))
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"hazards {name!r}: {type(e).__name__}: {e}") from e


def _read_hazard(entry: Dict[str, object]) -> Hazard:
    lists = {key: _texts(entry.pop(key), key) for key in ("backends", "evidence")}
    spans, when, action = entry.pop("versions"), entry.pop("when"), str(entry["action"])
    if action not in ACTIONS:
        raise ValueError(f"action is {action!r}; must be one of {', '.join(ACTIONS)}")
    if not isinstance(spans, list) or not spans or not isinstance(when, dict):
        raise ValueError("versions must be a list of [first, last], and when a table")
    architectures = _texts(entry.pop("architectures", []), "architectures")
    texts = {key: _filled(value, key) for key, value in entry.items()}
    versions = tuple(_read_span(span) for span in spans)
    return Hazard(versions=versions, when=_condition(when), architectures=architectures, **lists, **texts)  # type: ignore[arg-type]  # by name


def _condition(values: Mapping[str, object]) -> Condition:
    given = {"with_" if key == "with" else key: value for key, value in values.items()}
    opset = given.pop("opset", [None, None])
    if not isinstance(opset, list) or len(opset) != 2:
        raise ValueError(f"when.opset is {opset!r}; must be [first, last]")
    read = {key: _texts(value, f"when.{key}") for key, value in given.items()}
    if not any(read.values()):
        raise ValueError("when says nothing, and would hold for every graph")
    return Condition(opset=(int(opset[0] or 0), int(opset[1] or 0)), **read)


def _texts(value: object, key: str) -> Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError(f"{key} is {value!r}; must be a list of strings")
    return tuple(value)


def _filled(value: object, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}; must be a string")
    return value


def _read_span(span: Union[Sequence[object], object]) -> Tuple[str, Optional[str]]:
    if not isinstance(span, list) or len(span) != 2:
        raise ValueError(f"versions has {span!r}; must be [first, last]")
    first, last = span
    for end in (first, *([last] if last is not None else [])):
        if not isinstance(end, str) or not _numbers(end):
            raise ValueError(f'versions has {end!r}; must be a version, as "10.13"')
    return first, last


def _within(version: str, first: str, last: Optional[str]) -> bool:
    """Whether ``version`` lies between, as far as each end goes: 1.30.1 is within an end of 1.30."""
    seen, low = _numbers(version), _numbers(first)
    if not seen:
        return True  # what calls itself nothing is not known to be right
    high = _numbers(last) if last is not None else seen
    return seen[: len(low)] >= low and seen[: len(high)] <= high


def _numbers(version: str) -> Tuple[int, ...]:
    head = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in head.group().split(".")) if head else ()


def _span(first: str, last: Optional[str]) -> str:
    return f"from {first}" if last is None else first if first == last else f"{first} to {last}"
