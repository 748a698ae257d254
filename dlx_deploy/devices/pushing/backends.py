"""Which of a package's backends would run it on a board, by what is installed there; nothing is tried yet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.devices.asking import BoardFacts
from dlx_deploy.runtime.backends.names import DEFAULT_ORDER, ENGINES
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.hazards.operators import Operator, in_exact, in_half, list_operators
from dlx_deploy.runtime.hazards.table import Hazard, hazards_for
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.supported import ONNXRUNTIME as SUPPORTED
from dlx_deploy.runtime.supported import check_onnxruntime
from dlx_deploy.targets.hazards import STRONG_SINCE

__all__ = ["Runner", "expected_runner", "lacking_runtimes", "runners_of"]

ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "tensorrt": (("tensorrt",), ("cuda-python",)),
    "tensorrt-rtx": (("tensorrt-rtx",), ("cuda-python",)),
    "onnxruntime-tensorrt-rtx": (ONNXRUNTIME, ("onnxruntime-ep-nv-tensorrt-rtx",)),
    "onnxruntime-cuda": (("onnxruntime-gpu",),),
    "onnxruntime-cpu": (ONNXRUNTIME,),
}
"""Backend → distributions, of each tuple one."""
BROUGHT: tuple[dict[str, str], ...] = ({}, {"cuda-python": "12.0"}, {"onnxruntime": "{}.{}.0".format(*SUPPORTED[1])})
"""What ``--bootstrap`` can bring so that something runs, by version, the least first: TensorRT comes with a system."""


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A backend on a board. ``missing``: why it is passed over there; empty: it would run the package.

    ``warnings``: what is said of it otherwise. ``version``: of the runtime behind it; empty where that is not there.
    """

    backend: str
    version: str
    missing: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def is_engine(self) -> bool:
        """Whether it builds an engine there first."""
        return self.backend in ENGINES


def runners_of(package: Package, facts: BoardFacts, accept_hazards: bool = False) -> tuple[Runner, ...]:
    """The package's backends in its order, each as the board has it."""
    order = package.meta["recipe"].get("backends", DEFAULT_ORDER)
    return tuple(_runner(str(name), package, facts, accept_hazards) for name in order)


def expected_runner(runners: tuple[Runner, ...]) -> Runner | None:
    """What would run the package; ``None``: nothing that is there."""
    return next((runner for runner in runners if not runner.missing), None)


def lacking_runtimes(package: Package, facts: BoardFacts, accept_hazards: bool = False) -> tuple[str, ...] | None:
    """The distributions that have to come for the package to run there; none: something runs it. ``None``: none of
    those that can be brought would do, as of a package that names engines alone.

    One that is there may be asked for: it is too old.
    """
    for come in BROUGHT:
        versions = {**facts.versions, **come}
        there = msgspec.structs.replace(facts, versions=versions)
        if expected_runner(runners_of(package, there, accept_hazards)) is not None:
            return tuple(come)
    return None


def _runner(backend: str, package: Package, facts: BoardFacts, accept_hazards: bool) -> Runner:
    needs = NEEDS.get(backend, ())
    version = next((facts.versions[name] for name in needs[0] if name in facts.versions), "") if needs else ""
    missing = [" or ".join(names) for names in needs if not set(names) & set(facts.versions)]
    if backend != "onnxruntime-cpu" and not facts.gpus:
        missing.append("an NVIDIA GPU")
    if missing:
        return Runner(backend=backend, version=version, missing=f"it lacks {_joined(missing)}")
    warnings: list[str] = []
    if needs[0] == ONNXRUNTIME:
        try:
            newer = check_onnxruntime(version)
        except BackendMissing as e:
            return Runner(backend=backend, version=version, missing=str(e))
        warnings += [newer] if newer else []
    met = _hazards(backend, version, package, facts.arch)
    refusing = [hazard for hazard in met if hazard.refuses and not accept_hazards]
    if refusing:
        return Runner(backend=backend, version=version, missing="; ".join(map(Hazard.describe, refusing)))
    return Runner(backend=backend, version=version, warnings=(*warnings, *map(Hazard.describe, met)))


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _hazards(backend: str, version: str, package: Package, arch: str) -> list[Hazard]:
    """What the package's graph, as ``backend`` is given it, is known to meet there."""
    known = None if backend == "onnxruntime-tensorrt-rtx" else version  # a plugin says nothing of the TensorRT inside
    return hazards_for(_operators(backend, version, package), backend, known, arch)


def _operators(backend: str, version: str, package: Package) -> Sequence[Operator]:
    found = list_operators(package.model)
    if backend in ("onnxruntime-cpu", "onnxruntime-cuda"):
        return in_exact(found) if package.exact_qdq else found
    engine = package.meta["recipe"].get("engine") or {}
    major = version.partition(".")[0]
    weak = backend == "tensorrt" and major.isdigit() and int(major) < STRONG_SINCE
    return in_half(found) if weak and "fp16" in (engine.get("weak_types") or ()) else found
