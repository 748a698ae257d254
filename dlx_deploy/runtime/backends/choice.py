"""What runs a package on this machine: the first backend of the package's order that can, and why the others cannot.

A backend that is not here (no library, no driver, no such GPU) is passed over and said so; one that is here and fails
is an error, never a reason to go on with a slower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Sequence

from ..errors import BackendMissing, InputError, PackageError
from ..words import shortened
from .names import DEFAULT_ORDER
from .table import BACKENDS, BackendOptions, BackendRecord, Say, Session

if TYPE_CHECKING:
    from ..package.contents import Package

__all__ = ["Backend", "open_backend"]


@dataclass(frozen=True)
class Backend:
    """An open backend and the record that it came from.

    ``skipped``: why each backend before it was passed over; ``chosen``: whether there was anything to choose from.
    """

    name: str
    record: BackendRecord
    session: Session
    skipped: Sequence[str] = ()
    chosen: bool = True

    def describe(self) -> str:
        """The choice and its reasons, for people."""
        return f"backend: {self.name}" + (f" (passed over: {'; '.join(self.skipped)})" if self.skipped else "")


def open_backend(package: Package, options: BackendOptions, say: Say) -> Backend:
    """The backend that ``options`` name, or the first of the package's order that is here; ``say`` hears of progress.

    Raises:
        BackendMissing: it, or every one of them, is not here.
        InputError: no backend has this name.
        EngineError: TensorRT is here, but the engine cannot be built, or must not be.
        PackageError: the model or the recipe is damaged.
    """
    name = options.backend
    if name is not None:
        if name not in BACKENDS:
            raise InputError(f"backend is {name!r}; must be one of {', '.join(BACKENDS)}")
        return Backend(name, BACKENDS[name], BACKENDS[name].open(package, options, say))
    skipped: List[str] = []
    order = _order(package)
    for name in order:
        try:
            session = BACKENDS[name].open(package, options, say)
        except BackendMissing as e:
            skipped.append(f"{name}: {e}")
        else:
            return Backend(name, BACKENDS[name], session, tuple(skipped), len(order) > 1)
    raise BackendMissing(f"nothing on this machine runs the package: {'; '.join(skipped)}")


def _order(package: Package) -> Sequence[str]:
    order = package.meta["recipe"].get("backends", DEFAULT_ORDER)
    unknown = [name for name in order if name not in BACKENDS]
    if unknown or not order:
        raise PackageError(f"recipe.backends is {shortened(order)}; must be some of {', '.join(BACKENDS)}")
    return list(order)
