"""Slices of samples (a camera, the night): the budget of each, as a package has it and as a command gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Optional, Sequence, Tuple

from ..errors import InputError
from ..records import record, replace

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["NO_SLICES", "SliceBudgets", "asked_slices", "column_of", "read_slices", "slice_fields"]

SLICES = "budgets.slices"
MOST = 100_000  # slices that a package names


@record
class SliceBudgets:
    """``columns``: of which the values are slices. ``named``: slice, COLUMN=VALUE, of the build → how far it may drop;
    ``others``: how far any other may. 0: no budget."""

    columns: Tuple[str, ...]
    others: float
    named: Mapping[str, float]

    def of(self, name: str) -> float:
        """The budget of the slice ``name``."""
        return self.named.get(name, self.others)

    def asks(self, column: str) -> bool:
        """Whether a slice of ``column`` has a budget."""
        return bool(self.others) or any(limit for name, limit in self.named.items() if column_of(name) == column)


NO_SLICES = SliceBudgets((), 0.0, {})


def column_of(name: str) -> str:
    """The column of the slice ``name``."""
    return name.partition("=")[0]


def asked_slices(own: SliceBudgets, columns: Optional[Sequence[str]], limit: Optional[float]) -> SliceBudgets:
    """The package's ``own`` with what was given in their place: the ``columns``, in any case, and one ``limit`` for
    every slice. Columns of its own that have budgets are judged all the same: only a ``limit`` of 0 leaves them out.

    Raises:
        InputError: a limit out of range, or of no slices.
    """
    if limit is not None and not 0 <= limit < 1:
        raise InputError(f"the budget of each slice is {limit}; must be at least 0 and under 1 (0.05 is five points)")
    asked = own if columns is None else replace(own, columns=_joined(own, columns, limit != 0))
    named = {name: budget for name, budget in asked.named.items() if column_of(name) in asked.columns}
    if limit is not None:
        named = dict.fromkeys(named, limit)
    if limit and not asked.columns:
        raise InputError(f"the budget of each slice is {limit:g}, and the package has none; name columns: --slices")
    return SliceBudgets(asked.columns, own.others if limit is None else limit, named)


def _joined(own: SliceBudgets, columns: Sequence[str], held: bool) -> Tuple[str, ...]:
    """The ``columns`` as the package writes those that it knows, and, where its budgets are ``held``, the others that
    have some."""
    known = {name.lower(): name for name in own.columns}
    named = {name.lower(): known.get(name.lower(), name) for name in columns}
    kept = [name for name in own.columns if held and own.asks(name)]
    return tuple(dict.fromkeys([*named.values(), *kept]))


def slice_fields(budgets: SliceBudgets) -> Dict[str, object]:
    """What ``package.json`` says of them among the budgets; nothing where there are none."""
    if not budgets.columns:
        return {}
    return {"slices": {"columns": list(budgets.columns), "max_drop": budgets.others, "named": dict(budgets.named)}}


def read_slices(field: Fields) -> SliceBudgets:
    """The budgets that ``package.json`` has; of older packages none.

    Raises:
        PackageError: they are something else.
    """
    if not field.has(SLICES):
        return NO_SLICES
    columns, named = field.get(f"{SLICES}.columns", list), field.get(f"{SLICES}.named", dict)
    if not columns or not all(isinstance(name, str) and name and "=" not in name for name in columns):
        raise field.wrong(f"{SLICES}.columns", columns, "must be names of columns, at least one, none with '='")
    for name, limit in named.items():
        if column_of(name) not in columns or "=" not in name:
            raise field.wrong(f"{SLICES}.named", name, "must name slices, COLUMN=VALUE, of budgets.slices.columns")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < 1:
            raise field.wrong(f"{SLICES}.named", limit, "must be at least 0 and under 1")
    if len(named) > MOST:
        raise field.wrong(f"{SLICES}.named", len(named), f"must be at most {MOST} slices")
    return SliceBudgets(tuple(columns), field.fraction(f"{SLICES}.max_drop", 0), dict(named))
