"""What runs a package on this machine: the first backend of the package's order that can, and why the others cannot.

A backend that is not here (no library, no driver, no such GPU) is passed over and said so, and so is one that is known
to compute the package's graph wrong (``hazards``); one that is here and fails is an error, never a reason to go on with
a slower one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Sequence

from ..errors import BackendMissing, EngineError, InputError, PackageError
from ..hazards.operators import in_exact, in_half, list_operators
from ..hazards.table import Hazard, hazards_for, hazards_of, this_arch
from ..records import record
from ..words import shortened
from .names import DEFAULT_ORDER, ENGINES
from .table import BACKENDS, BackendOptions, BackendRecord, Say, Session

if TYPE_CHECKING:
    from ..package.contents import Package

__all__ = ["Backend", "met_hazards", "open_backend", "possible_hazards"]


@record
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
        BackendMissing: it, or every one of them, is not here, or computes this graph wrong.
        InputError: no backend has this name.
        EngineError: TensorRT is here, but the engine cannot be built, or must not be; or TensorRT computes this graph
            wrong and nothing else is here.
        PackageError: the model or the recipe is damaged.
    """
    name = options.backend
    if name is not None:
        if name not in BACKENDS:
            raise InputError(f"backend is {name!r}; must be one of {', '.join(BACKENDS)}")
        refusal = _refusal(name, package, options, say)
        if refusal:
            raise _refused([name], f"{name} is not used: {refusal}; --accept-hazards uses it all the same")
        return Backend(name, BACKENDS[name], BACKENDS[name].open(package, options, say))
    skipped: List[str] = []
    refused: List[str] = []
    order = _order(package)
    for name in order:
        try:
            refusal = _refusal(name, package, options, say)
            session = None if refusal else BACKENDS[name].open(package, options, say)
        except BackendMissing as e:
            skipped.append(f"{name}: {e}")
            continue
        if session is not None:
            return Backend(name, BACKENDS[name], session, tuple(skipped), len(order) > 1)
        skipped.append(f"{name}: {refusal}")
        refused.append(name)
    raise _refused(refused, f"nothing on this machine runs the package: {'; '.join(skipped)}")


def met_hazards(name: str, package: Package) -> List[Hazard]:
    """What the package's graph meets on the backend ``name`` as it is on this machine.

    Raises:
        BackendMissing, EngineError, PackageError: as ``open_backend``, before anything is opened.
    """
    running, arch = BACKENDS[name].running(package), this_arch()
    if not hazards_of(running.backend, running.version, arch):
        return []  # the graph need not be read
    return hazards_for(running.operators(), running.backend, running.version, arch)


def possible_hazards(package: Package) -> List[Hazard]:
    """What the package's graph meets on any of its backends, in some version, here or elsewhere."""
    found = list_operators(package.model)
    plain = in_exact(found) if package.exact_qdq else found
    engine = package.meta["recipe"].get("engine") or {}
    weak = engine.get("weak_types")
    own = in_half(found) if isinstance(weak, list) and "fp16" in weak else found
    met = [hazards_for(own if BACKENDS[name].own_graph else plain, name) for name in _order(package)]
    return list({hazard.id: hazard for hazards in met for hazard in hazards}.values())


def _refusal(name: str, package: Package, options: BackendOptions, say: Say) -> str:
    """Why the backend must not run the package, empty if it may; ``say`` hears what is said of it otherwise."""
    met = met_hazards(name, package)
    refusing = [hazard for hazard in met if hazard.refuses and not options.accept_hazards]
    for hazard in met:
        if hazard not in refusing:
            say(f"warning: {name} is known to compute this wrong: {hazard.describe()}")
    return "; ".join(hazard.describe() for hazard in refusing)


def _refused(engines: Sequence[str], text: str) -> Exception:
    """The error of a refusal: no engine may be used, or nothing else is here."""
    return EngineError(text) if set(engines) & set(ENGINES) else BackendMissing(text)


def _order(package: Package) -> Sequence[str]:
    order = package.meta["recipe"].get("backends", DEFAULT_ORDER)
    unknown = [name for name in order if name not in BACKENDS]
    if unknown or not order:
        raise PackageError(f"recipe.backends is {shortened(order)}; must be some of {', '.join(BACKENDS)}")
    return list(order)
